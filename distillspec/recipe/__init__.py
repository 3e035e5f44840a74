"""What a run is: typed, strict, loaded from YAML; imports no torch."""
