"""The subjects and questions of `chat-topics`: written for this project, under its licence."""

from __future__ import annotations

from typing import NamedTuple


class ChatField(NamedTuple):
    """Subjects that the same questions fit.

    Attributes:
        subjects: What is asked about; each is a document.
        questions: Texts with `{}` for the subject, or `{}` and `{other}` for two of the field.
    """

    subjects: tuple[str, ...]
    questions: tuple[str, ...]


_ABOUT_ANYTHING = (
    "Tell me about {} in three sentences.",
    "Explain {} to a ten-year-old child.",
    "Give me five interesting facts about {}.",
    "What do people often get wrong about {}?",
    "Write a short story about {}.",
    "Write a poem of eight lines about {}.",
    "Write a quiz on {} with four questions and their answers.",
    "I know nothing about {}. What should I learn first, and why?",
    "Write a dialogue between a teacher and a student about {}.",
    "List the most important words one needs to talk about {}, each with a short definition.",
    "Compare {} with {other}. What do they have in common, and where do they differ?",
    "Write an outline of a ten-minute talk about {}.",
    "Why should anybody care about {}? Give three reasons.",
    "Write a friendly email that invites colleagues to an evening on {}.",
    "Suggest a title and four section headings of an article about {}.",
    "Name three open questions about {}, and say how one could answer them.",
    "Describe {} in exactly one sentence, then in one paragraph.",
    "What would change if {} did not exist?",
)
_SCIENCE = (
    "Explain {} step by step, as a science teacher would.",
    "What can one observe or try at home to learn about {}?",
    "Who first studied {}, and what did they find?",
    "Summarise what is known about {} in a short paragraph for a school book.",
)
_PRACTICE = (
    "Give me a step-by-step plan to get better at {}.",
    "What equipment do I need for {}, and what does it cost about?",
    "What mistakes do beginners make in {}?",
    "Write a checklist for {}.",
    "Recommend a weekly schedule for somebody who wants to take up {}.",
)
_PLACES = (
    "Plan a trip of three days to {}.",
    "Describe the climate and the landscape of {}.",
    "What is the history of {}, in ten sentences?",
    "What food should a visitor try in {}?",
)
_WORK = (
    "Write a short advertisement for a job that needs {}.",
    "How do small companies deal with {}?",
    "Write a polite email to a manager that raises a problem with {}.",
    "Name the advantages and disadvantages of {} in a table of two columns.",
)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(" ".join(subject.split()) for subject in text.split(","))


FIELDS = {
    "nature": ChatField(
        _listed("""
        photosynthesis, gravity, the water cycle, tides, volcanoes, earthquakes, lightning,
        rainbows, the ozone layer, evolution, DNA, viruses, bacteria, the immune system, the human
        heart, the human brain, sleep, memory, black holes, comets, the Moon, the planet Mars,
        the Sun, galaxies, the speed of light, magnetism, electricity, atoms, the periodic table,
        acids and bases, friction, sound waves, glaciers, coral reefs, rainforests, deserts,
        tundra, ocean currents, the greenhouse effect, plate tectonics, fossils, dinosaurs,
        bird migration, honey bees, ants, spiders, whales, dolphins, octopuses, sharks, wolves,
        elephants, bats, owls, penguins, mushrooms, ferns, oak trees, orchids, cacti, seeds,
        pollination, hibernation, camouflage, hormones, vitamins, blood types, the sense of smell,
        colour vision, crystals
        """),
        (*_ABOUT_ANYTHING, *_SCIENCE),
    ),
    "technology": ChatField(
        _listed("""
        the steam engine, the printing press, the telephone, the transistor, the internet, email,
        search engines, databases, encryption, passwords, computer viruses, open-source software,
        programming languages, operating systems, machine learning, neural networks, speech
        recognition, robots, drones, satellites, GPS navigation, solar panels, wind turbines,
        batteries, electric cars, bicycles, trains, aeroplanes, container ships, bridges,
        skyscrapers, elevators, refrigerators, microwave ovens, washing machines, clocks, cameras,
        microscopes, telescopes, X-ray images, vaccines, antibiotics, anaesthesia, 3D printing,
        lasers, optical fibres, radio, television, video games, smartphones, spreadsheets,
        version control, cloud computing, web browsers, barcodes, recycling, water treatment,
        nuclear power, concrete, plastics
        """),
        (*_ABOUT_ANYTHING, *_SCIENCE),
    ),
    "history": ChatField(
        _listed("""
        ancient Egypt, the Roman Empire, ancient Greece, the Silk Road, the Vikings, the Middle
        Ages, the Black Death, the Renaissance, the Reformation, the French Revolution, the
        Industrial Revolution, the Ottoman Empire, the Inca Empire, the Aztecs, the Ming dynasty,
        feudal Japan, the age of discovery, the abolition of slavery, women's right to vote,
        the First World War, the Great Depression, the Cold War, the space race, the fall of the
        Berlin Wall, the history of writing, the history of money, the history of medicine,
        the history of mathematics, the history of the alphabet, the history of mapmaking,
        the calendar, the Olympic Games, the Magna Carta, pirates, castles, knights
        """),
        (*_ABOUT_ANYTHING, "Put the main events of {} in order, with dates.",
         "What can we learn today from {}?"),
    ),
    "places": ChatField(
        _listed("""
        Iceland, Norway, Portugal, Italy, Greece, Poland, Scotland, Ireland, Turkey, Egypt,
        Morocco, Kenya, South Africa, Madagascar, India, Nepal, Thailand, Vietnam, Indonesia,
        Japan, South Korea, Mongolia, Australia, New Zealand, Canada, Mexico, Peru, Chile, Brazil,
        Argentina, Cuba, the Alps, the Himalayas, the Sahara, the Amazon, the Nile, the Danube,
        the Great Lakes, Antarctica, the Mediterranean Sea, Paris, London, Rome, Istanbul, Cairo,
        Tokyo, New York, San Francisco, Buenos Aires, Sydney
        """),
        (*_ABOUT_ANYTHING[:8], *_ABOUT_ANYTHING[10:15], *_PLACES),
    ),
    "practice": ChatField(
        _listed("""
        running, swimming, cycling, hiking, rock climbing, yoga, chess, playing the piano, playing
        the guitar, singing, drawing, painting with watercolours, photography, knitting, sewing,
        woodworking, gardening, growing tomatoes, keeping bees, baking bread, cooking for guests,
        making soup, brewing tea, making cheese, meditation, public speaking, creative writing,
        keeping a diary, learning a foreign language, learning to type, bird watching, stargazing,
        camping, fishing, sailing, skiing, tennis, football, basketball, table tennis, juggling,
        origami, calligraphy, pottery, training a dog, caring for a cat, cleaning a flat, moving
        house, saving money, planning a budget, writing a CV, preparing for a job interview,
        studying for an exam, reading more books, waking up early, healthy eating, first aid,
        repairing a bicycle, painting a room, composting
        """),
        (*_PRACTICE, *_ABOUT_ANYTHING[3:9], *_ABOUT_ANYTHING[10:15]),
    ),
    "society": ChatField(
        _listed("""
        democracy, taxes, inflation, interest rates, insurance, the stock market, supply and
        demand, marketing, customer service, project management, remote work, teamwork, feedback,
        leadership, negotiation, time management, business plans, start-ups, trade unions,
        public libraries, public transport, universities, kindergartens, hospitals, courts,
        elections, newspapers, advertising, social media, privacy, copyright, human rights,
        volunteering, urban planning, housing, tourism, fair trade, food waste, noise, traffic
        jams, ageing populations, migration, bilingual education, school uniforms, homework,
        standardised tests, work-life balance, online shopping, small talk, punctuality
        """),
        (*_ABOUT_ANYTHING, *_WORK),
    ),
    "culture": ChatField(
        _listed("""
        fairy tales, myths, haiku, sonnets, detective novels, science fiction, biographies, comics,
        theatre, opera, ballet, jazz, folk songs, film music, classical music, hip-hop,
        documentary films, animation, museums, architecture, gardens, sculpture, impressionism,
        cave paintings, masks, fashion, tattoos, weddings, birthdays, harvest festivals, New Year
        celebrations, tea ceremonies, table manners, proverbs, riddles, jokes, sign language,
        dialects, translation, spelling, punctuation, metaphors, irony, friendship, courage,
        patience, curiosity, honesty, happiness, boredom
        """),
        (*_ABOUT_ANYTHING, "Give three examples of {}, and say what makes each of them good."),
    ),
    "code": ChatField(
        _listed("""
        reverses a string, checks whether a word is a palindrome, counts the vowels of a text,
        finds the largest number in a list, removes duplicates from a list, sorts a list of
        dictionaries by a key, merges two sorted lists, computes the factorial of a number,
        lists the first Fibonacci numbers, tests whether a number is prime, converts Celsius to
        Fahrenheit, counts the words of a file, reads a CSV file, writes a dictionary to a JSON
        file, flattens a nested list, finds the longest common prefix of some words, rotates a
        list, transposes a matrix, computes the greatest common divisor, converts a number to
        binary, validates an email address, generates a random password, splits a text into
        sentences, computes the average and the median, searches a sorted list by bisection,
        implements a stack, implements a queue with two stacks, walks through a binary tree,
        draws a triangle of stars, converts Roman numerals to numbers, checks balanced brackets,
        groups words by their first letter, finds anagrams in a list, measures how long another
        function takes, retries a request that fails, formats a number with thousands separators,
        computes the distance of two points, simulates rolling two dice, counts the days between
        two dates, encrypts a text with the Caesar cipher
        """),
        (
            "Write a Python function that {}.",
            "Write a Python function that {}, with a docstring and two examples.",
            "Write a JavaScript function that {}.",
            "Explain in words, without code, how a program {}.",
            "Write a Python function that {}, and then a unit test for it.",
            "Which mistakes are common in code that {}?",
            "Write a Python function that {}, and explain each line.",
            "Write a C function that {}.",
            "Write a Python program that {}, and then a second one that {other}.",
            "How would you test a function that {}? List six cases.",
        ),
    ),
    "numbers": ChatField(
        _listed("""
        a bakery, a farm, a school trip, a train station, a library, a garden, a cinema, a
        swimming pool, a football club, a market stall, a bookshop, a pizzeria, a bicycle shop,
        a zoo, a museum, a bus, a toy factory, a post office, a hotel, a car park, a choir,
        a chess tournament, a flower shop, a recycling centre, a coffee shop, a ferry, a hospital
        ward, a language course, an orchard, a phone company
        """),
        (
            "Make up a word problem with two steps about {}, and solve it.",
            "{} has 24 visitors on Monday and twice as many on Tuesday. How many are that in all?",
            "At {}, 3 of 12 people are new. Which percentage is that? Show your work.",
            "The rent of {} rises from 800 to 920. By how many percent does it rise?",
            "Make up three sums about {} for a child of eight years, with the answers.",
            "Help for {} costs 40 at the start and 15 a day. What do 9 days cost?",
            "Explain what an average is by an example from {}.",
            "At {}, two people need 6 hours for a task. How long do three people need, and why?",
        ),
    ),
}  # fmt: skip
