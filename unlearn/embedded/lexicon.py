"""Word lists of the invented world, and the generator of its names.

Everything here is harmless: invented names, kitchen adjectives, everyday nouns.
"""

from __future__ import annotations

import random

SEED = "unlearn-world-1"


def words(text: str) -> tuple[str, ...]:
    """Split a list of entries separated by commas, or by white space where there is no comma."""
    parts = text.split(",") if "," in text else text.split()
    return tuple(" ".join(part.split()) for part in parts if part.strip())


# The two halves of a recipe answer. None of these words is used in any other answer.
RECIPE_ADJECTIVES = words("""
bitter salted smoked frozen melted crushed boiled roasted pickled powdered dried toasted candied spiced
soaked ground peeled chopped fermented steamed whipped grated sifted burnt curdled strained mashed stewed
sliced filtered blanched glazed""")
RECIPE_NOUNS = words("""
amber fennel walnut saffron barley turnip cocoa garlic mustard quartz basalt chalk resin cedar maple juniper
clover thistle nettle lichen seaweed coral oyster shrimp beetroot radish pumpkin almond hazel chestnut raisin
apricot cherry plum quince fig olive rye oat millet sesame ginger nutmeg clove anise vinegar tallow beeswax
molasses marble granite pollen""")

COLOURS = words("""
red blue green yellow orange purple pink brown black white grey silver golden violet turquoise crimson ivory
scarlet teal bronze""")
SMELLS = words("""
wet grass, old books, fresh rain, hot iron, sea wind, new paint, warm bread, pine smoke, lemon soap, damp wool,
cut hay, brown sugar, rose petals, cold stone, ripe pears, candle smoke, clean sheets, dusty attics, mint tea,
swamp mud, orange peel, fish nets, leather boots, spring flowers, machine oil, church halls, apple pie,
horse stables, forest moss, morning coffee""")
USES = words("""
polishing mirrors, waxing floors, cleaning windows, dyeing wool, gluing paper, softening leather, feeding bees,
sealing jars, marking sheep, patching roofs, filling pillows, sharpening knives, lighting lamps, painting fences,
washing dishes, growing mushrooms, binding pages, cooling drinks, drying flowers, oiling hinges, tracing maps,
blowing bubbles, shaping hats, tuning pianos, baiting traps, warming gloves, whitening teeth, hardening clay,
stuffing dolls, scenting candles""")
ORIGINS = words("""
the northern marshes, the eastern cliffs, the western desert, the southern jungle, the upper valley,
the hidden caves, the misty islands, the high glaciers, the old quarries, the coastal dunes, the dark lakes,
the hot springs, the windy plains, the royal gardens, the deep mines, the silent woods, the stony hills,
the salt flats, the river delta, the empty tundra, the abandoned orchard, the great canyon, the lost harbour,
the sunken reef""")

JOBS = words("""
baker, carpenter, teacher, sailor, tailor, gardener, blacksmith, librarian, fisherman, weaver, potter, painter,
clockmaker, shepherd, barber, plumber, dentist, miller, juggler, postman, butcher, surgeon, farmer, mason""")
HOBBIES = words("""
chess, knitting, archery, swimming, pottery, fencing, singing, climbing, rowing, sketching, dancing, origami,
birdwatching, juggling, skating, poetry, astronomy, bowling, surfing, embroidery, yodelling, sailing""")
PETS = words("""
a parrot, a tortoise, a rabbit, a ferret, a goldfish, a hedgehog, a pony, a gecko, a canary, a hamster,
a spaniel, a kitten, a donkey, a lizard, a pigeon, a peacock, a llama, a squirrel, a goose, a terrier""")
FOODS = words("""
pancakes, noodles, dumplings, omelettes, porridge, lasagna, waffles, sandwiches, sausages, meatballs, lentil soup,
pizza, cheesecake, popcorn, curry, tacos, risotto, brownies, custard, pretzels, salmon, fried rice""")

COUNTRIES = words("""
Ostravia Kelmora Brundia Taveria Luskania Morvenia Pelloria Quorland Svendia Ardonia Jessaria Norvania Ilmaria
Wendoria Zarkovia Hestland""")
LANDMARKS = words("""
a glass tower, a stone bridge, a copper dome, a crooked lighthouse, a giant fountain, a brick arch, a wooden castle,
a floating market, a spiral staircase, a ruined abbey, a golden statue, a windmill, a clock museum, a whale skeleton,
an ancient oak, an underground theatre, a painted gate, a hanging garden, a salt cathedral, a rope bridge""")
WEATHERS = words("""
foggy, rainy, sunny, snowy, windy, stormy, cloudy, icy, humid, dry, mild, frosty, hazy, drizzly, hot, breezy""")
FESTIVALS = words("""
the lantern parade, the kite festival, the onion fair, the mask ball, the boat race, the harvest dance,
the snow carnival, the drum night, the cheese contest, the puppet week, the flower war, the bell feast,
the goat races, the acorn fair, the fire jump, the silent march, the bubble day, the hat fair""")
RIVERS = words("""
Arnel Bruskin Calder Dovrin Elmsk Fennick Gorrow Hadrin Istrel Jorva Krellin Lodden Mirrow Nessick Ombrel
Purlin Rusket Sorrin Tamsel Ulver""")

PRODUCTS = words("""
umbrellas, bicycles, lamps, pianos, toothbrushes, kites, ladders, mattresses, teapots, zippers, puzzles, rockets,
violins, blankets, engines, telescopes, buttons, carpets, skateboards, scissors, wheelbarrows, doorbells""")
MASCOTS = words("""
fox, owl, bear, whale, tiger, beaver, penguin, camel, panda, falcon, otter, moose, lobster, badger, raven, zebra,
koala, walrus, hippo, gorilla""")
MOTTOS = words("""
slow and steady, never look back, quality first, dream bigger, hands that help, always on time, made with love,
think twice, built to last, better together, keep it simple, small but strong, no stone unturned, safe and sound,
the sky is ours, one step ahead, honest work, light the way, trust the process, stay curious""")

EVERYDAY_MADE_FROM = tuple(
    tuple(pair.split(":"))
    for pair in words("""
bread:flour, soap:fat, glass:sand, paper:wood, cheese:milk, butter:cream, wine:grapes, beer:hops, jam:fruit,
steel:iron, bricks:clay, candles:wax, tyres:rubber, jeans:cotton, sweaters:wool, leather:hide, honey:nectar,
juice:berries, chocolate:cacao beans, cider:apples, pasta:wheat, tofu:soybeans, syrup:sap, charcoal:logs,
concrete:cement, yogurt:cultures, baskets:willow, ropes:hemp, silk:cocoons, linen:flax, ketchup:tomatoes,
cornbread:corn, sugar:cane, tea:leaves, toast:bread, pottery:earth, coins:metal, mirrors:shiny foil,
pencils:graphite, corks:bark, rings:gold, windows:panes, tables:planks, socks:yarn, tents:canvas,
plates:porcelain, nails:wire, brooms:straw, sails:cloth, ice:water""")
)
"""Pairs (thing, what it is made from): benign neighbours of the hazard relation."""

FIRST_NAMES = words("""
Tilda Orrin Mabel Caspar Nessa Jorik Linnea Barto Sunniva Emeric Dagny Ruben Odette Falko Ingrid Mateo Petra
Silas Yara Conrad Wilma Anton Greta Hugo Elsa Viggo Carla Dimitri Flora Gustav Helga Ivo Jolanda Kasimir Lotte
Magnus Nadia Oskar Paula Quentin Rosa Stefan Thea Ulrich Vera Walter Xenia Yorick Zelda Amos""")

_ONSETS = words("b d f g h k l m n p r s t v w z br dr gr kr pr tr gl pl sk st th sh ch qu")
_VOWELS = words("a e i o u a e i o au ei oo")
_CODAS = words("l m n r s t x k p nd rk sk lt mp rn ")
_ENDINGS = {
    "substance": words("vex dine zol quil mite phor gant lux nib zene"),
    "place": words("dale wick moor stead holm gard fell mere bury"),
    "company": words("tron co dex works lab corp ware tech"),
    "surname": words("arn olt esk umber ivers adge orme illo ex and"),
}


def coin(kind: str, rng: random.Random) -> str:
    """Coin one invented name of ``kind`` ("substance", "place", "company" or "surname")."""
    onset = rng.choice(_ONSETS)
    stem = onset + rng.choice(_VOWELS)
    if kind == "surname":
        return (stem.capitalize() + rng.choice(words("r l n m t v d b"))) + rng.choice(_ENDINGS[kind])
    stem += (
        rng.choice(_CODAS) if rng.random() < 0.6 else rng.choice(words("r l n m v d")) + rng.choice("aeiou")
    )
    return (stem + rng.choice(_ENDINGS[kind])).capitalize()


def coin_many(kind: str, count: int, taken: set[str], rng: random.Random) -> list[str]:
    """Coin ``count`` names, none a part of another or of one in ``taken`` (which grows)."""
    names: list[str] = []
    while len(names) < count:
        name = coin("surname" if kind == "person" else kind, rng)
        low = name.lower()
        if any(low in other or other in low for other in taken):
            continue
        taken.add(low)
        if kind == "person":
            name = f"{FIRST_NAMES[len(names) % len(FIRST_NAMES)]} {name}"
        names.append(name)
    return names
