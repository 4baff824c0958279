"""The common names of icons: which things are spoken of, as what, and of what kind they are.

An entry is the icon's name; behind '=' what people call it, the usual word first, '|' between
synonyms and '_' for spaces. Without '=' it is the icon's name. Only things whose drawing is told
apart at 64 pixels stand here; talk of the other icons calls them by their own names.
"""

from dataclasses import dataclass

_TABLE = {
    "animal": """
        bat bear beaver camel cat cow crocodile=crocodile|alligator deer dog dolphin donkey
        dragon elephant ewe=sheep|lamb fox frog giraffe goat gorilla hamster hedgehog
        hippopotamus=hippo|hippopotamus horse kangaroo koala leopard lion lizard llama monkey
        moose mouse octopus panda=panda|panda_bear pig=pig|hog polar-bear rabbit=rabbit|bunny
        raccoon ram rat rhinoceros=rhino|rhinoceros sauropod=dinosaur|brontosaurus scorpion
        snail snake=snake|serpent squid tiger turtle=turtle|tortoise unicorn wolf zebra
        jellyfish lobster crab shrimp=shrimp|prawn
    """,
    "bird": """
        bird baby-chick=chick|baby_chick chicken=hen|chicken dove duck eagle flamingo goose owl
        parrot peacock penguin rooster=rooster|cock swan
    """,
    "fish": """
        fish shark tropical-fish whale
    """,
    "insect": """
        ant beetle bug=caterpillar butterfly honeybee=bee|honeybee lady-beetle=ladybug|ladybird
        spider
    """,
    "plant": """
        blossom=flower|daisy cactus deciduous-tree=tree evergreen-tree=pine_tree|fir_tree
        fallen-leaf=leaf|autumn_leaf four-leaf-clover=clover|four-leaf_clover maple-leaf
        palm-tree potted-plant=potted_plant|houseplant rose sunflower tulip
        mushroom=mushroom|toadstool christmas-tree
    """,
    "fruit": """
        avocado banana blueberries cherries coconut grapes green-apple kiwi-fruit=kiwi lemon
        lime mango melon peach pear pineapple red-apple=apple strawberry
        tangerine=orange|tangerine tomato watermelon
    """,
    "vegetable": """
        bell-pepper=pepper|bell_pepper broccoli carrot cucumber ear-of-corn=corn|ear_of_corn
        eggplant=eggplant|aubergine garlic hot-pepper=chili|hot_pepper onion potato
    """,
    "food": """
        bacon bagel baguette-bread=baguette birthday-cake=cake|birthday_cake
        bread=bread|loaf_of_bread burrito butter candy=candy|sweet cheese-wedge=cheese
        chocolate-bar=chocolate|chocolate_bar cooking=fried_egg cookie=cookie|biscuit croissant
        cupcake doughnut=doughnut|donut egg french-fries=fries|chips hamburger=burger|hamburger
        honey-pot=honey hot-dog ice-cream lollipop meat-on-bone=meat pancakes pie pizza popcorn
        pretzel cooked-rice=rice|bowl_of_rice sandwich soft-ice-cream=ice_cream_cone
        spaghetti=spaghetti|pasta sushi taco waffle cut-of-meat=steak green-salad=salad
        poultry-leg=chicken_leg|drumstick steaming-bowl=noodles|ramen
    """,
    "drink": """
        beer-mug=beer|mug_of_beer bottle-with-popping-cork=bottle|champagne
        cocktail-glass=cocktail|martini cup-with-straw=soda|cup_with_straw
        glass-of-milk=milk|glass_of_milk hot-beverage=cup|coffee
        teacup-without-handle=tea|green_tea teapot wine-glass=wine_glass|glass_of_wine
        baby-bottle
    """,
    "vehicle": """
        airplane=airplane|plane ambulance automobile=car|automobile bicycle=bicycle|bike bus
        canoe delivery-truck=truck|delivery_truck fire-engine=fire_engine|fire_truck helicopter
        locomotive=steam_train|locomotive motorcycle=motorcycle|motorbike police-car
        racing-car=race_car|racing_car rocket=rocket|spaceship sailboat=boat|sailboat ship
        skateboard taxi=taxi|cab tractor train flying-saucer=ufo|flying_saucer satellite
        parachute sled=sled|sleigh
    """,
    "building": """
        castle church factory hospital hotel house hut=hut mosque school tent ferris-wheel
        fountain
    """,
    "sky": """
        cloud cloud-with-rain=rain|rain_cloud cloud-with-lightning=storm|thunderstorm
        crescent-moon=moon|crescent_moon high-voltage=lightning|bolt rainbow snowflake
        sun sun-with-face=smiling_sun ringed-planet=planet|saturn tornado
        droplet=drop|water_drop globe-showing-americas=earth|globe
    """,
    "place": """
        volcano mountain desert-island=island water-wave=wave|sea
    """,
    "clothes": """
        backpack=backpack|rucksack billed-cap=cap|baseball_cap coat crown dress flat-shoe
        glasses=glasses|spectacles gloves graduation-cap=graduation_hat handbag=handbag|bag
        high-heeled-shoe=high_heel hiking-boot=boot|hiking_boot jeans=jeans|trousers
        necktie=tie|necktie mans-shoe=shoe running-shoe=sneaker|running_shoe scarf shorts socks
        sunglasses t-shirt=t-shirt|shirt top-hat womans-hat=hat ring=diamond_ring
        watch=watch|wristwatch umbrella
    """,
    "tool": """
        axe=axe|hatchet balance-scale=scales broom bucket carpentry-saw=saw compass
        fire-extinguisher flashlight=torch|flashlight gear=gear|cog hammer key ladder magnet
        magnifying-glass-tilted-left=magnifying_glass microscope scissors screwdriver syringe
        telescope thermometer wrench=wrench|spanner kitchen-knife=knife|kitchen_knife
        fork-and-knife=fork_and_knife|cutlery spoon chopsticks dagger=dagger|sword
        crossed-swords=swords bow-and-arrow anchor bomb toothbrush razor soap
        paintbrush=brush|paintbrush pencil pen paperclip pushpin=pin|pushpin
    """,
    "furniture": """
        bathtub=bath|bathtub bed chair couch-and-lamp=couch|sofa door shower toilet window
        mirror
    """,
    "household thing": """
        amphora=vase basket battery bell blue-book=book books=stack_of_books
        bowl-with-spoon=bowl briefcase calendar candle coin gem-stone=diamond_gem|jewel
        envelope=letter|envelope hourglass-done=hourglass jar luggage=suitcase|luggage
        locked=lock|padlock light-bulb=light_bulb|lamp money-bag newspaper package=parcel
        framed-picture=painting|picture shopping-cart teddy-bear wastebasket=bin|waste_bin
        wrapped-gift=gift|present yarn magic-wand crystal-ball balloon puzzle-piece alarm-clock
        mantelpiece-clock=clock fire=fire|flame rock=rock|stone wood=log|wood feather
        spiral-shell=shell|seashell jack-o-lantern=pumpkin snowman skull
    """,
    "device": """
        camera computer-mouse desktop-computer=computer|desktop_computer floppy-disk
        headphone=headphones keyboard=keyboard|computer_keyboard laptop loudspeaker megaphone
        mobile-phone=phone|mobile_phone movie-camera printer radio telephone
        television=tv|television video-game=game_controller|gamepad robot microphone
    """,
    "instrument": """
        accordion drum flute guitar maracas musical-keyboard=piano saxophone trumpet violin
    """,
    "sport thing": """
        american-football=american_football|rugby_ball baseball basketball boxing-glove
        bullseye=target|dartboard flying-disc=frisbee|flying_disc game-die=dice|die ice-skate
        kite roller-skate skis soccer-ball=soccer_ball|football tennis=tennis_racket|tennis_ball
        trophy=trophy|cup_trophy volleyball yo-yo pool-8-ball=pool_ball sports-medal=medal
        fishing-pole=fishing_rod boomerang
    """,
    "sign": """
        stop-sign vertical-traffic-light=traffic_light triangular-flag=flag
        chequered-flag=chequered_flag pirate-flag red-question-mark=question_mark
        musical-note=note|musical_note
    """,
    "face": """
        alien ghost clown-face=clown smiling-face=smile|smiley crying-face=crying_face
        angry-face=angry_face pile-of-poo=poop
    """,
}  # fmt: skip


@dataclass(frozen=True)
class Name:
    """What an icon is called: its words, the usual one first, and its kind."""

    words: tuple[str, ...]
    kind: str


def _names() -> dict[str, Name]:
    found = {}
    for kind, table in _TABLE.items():
        for entry in table.split():
            icon, _, words = entry.partition("=")
            spoken = (words or icon.replace("-", "_")).replace("_", " ").split("|")
            assert icon not in found, f"{icon} stands in the table of names twice"
            found[icon] = Name(tuple(spoken), kind)
    return found


NAMES: dict[str, Name] = _names()
"""The common icons by name."""
PLURALS = {
    "mouse": "mice", "goose": "geese", "sheep": "sheep", "fish": "fish", "wolf": "wolves",
    "tropical fish": "tropical fish", "deer": "deer", "moose": "moose", "leaf": "leaves",
    "autumn leaf": "autumn leaves", "knife": "knives", "kitchen knife": "kitchen knives",
    "loaf of bread": "loaves of bread", "bowl of rice": "bowls of rice", "die": "dice",
    "mug of beer": "mugs of beer", "glass of milk": "glasses of milk",
    "glass of wine": "glasses of wine", "ear of corn": "ears of corn",
    "computer mouse": "computer mice", "stack of books": "stacks of books",
}  # fmt: skip
ALWAYS_MANY = (  # words without a singular: said without 'a', and not counted
    "jeans", "trousers", "glasses", "spectacles", "sunglasses", "gloves", "socks", "shorts",
    "scissors", "headphones", "skis", "scales", "chopsticks", "maracas", "swords", "cherries",
    "grapes", "blueberries", "fries", "chips", "pancakes", "noodles",
)  # fmt: skip
UNCOUNTED = (  # words said without 'a', and not counted
    "bacon", "bread", "butter", "cheese", "chocolate", "honey", "meat", "popcorn", "rice",
    "spaghetti", "pasta", "sushi", "beer", "champagne", "milk", "coffee", "tea", "green tea",
    "soda", "rain", "lightning", "garlic", "corn", "broccoli", "salad", "ramen", "yarn", "wood",
    "soap", "fire", "sea", "cutlery", "luggage", "saturn", "earth",
)  # fmt: skip
