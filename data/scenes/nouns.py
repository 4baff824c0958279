"""Nouns that the world of scenes does not know how to draw.

1. `NOUNS` are common nouns that no icon has, by its name or its keywords, in the icon sets that
   `unimodal data things` draws from: unknown to every model, whether it learned things or not.
2. `ICON_NOUNS` are those that an icon has: unknown only where things are not trained.
3. `NAMES` are proper names, which take no article.

A hyphen stands for the space in a noun of two words. Every fifth word (index % 5 == 0) is held out
of training: add at the end of a list and move nothing.
"""

from functools import cache

NOUNS = tuple(
    """
boss lawyer butcher baker tailor waiter waitress driver sailor captain colonel admiral knight
squire duke duchess earl baron emperor empress pope bishop priest monk nun vicar rabbi imam
president mayor senator minister governor sheriff thief burglar acrobat drummer guitarist
pianist violinist conductor composer sculptor poet novelist writer author editor journalist
reporter photographer actress boxer skater diver goalkeeper striker referee neighbour landlord
tenant guest stranger enemy rival colleague partner husband wife mum mummy daddy sister brother
uncle aunt cousin nephew niece grandmother grandfather dean scholar miner mason roofer florist
hunter shepherd butler maid janitor cleaner porter postman milkman stewardess cashier secretary
auditor broker trader merchant shopkeeper grocer pharmacist surgeon vet midwife psychologist
patient prisoner refugee traveller hiker camper commuter dwarf god goddess nymph centaur
minotaur sphinx griffin hydra kraken yeti werewolf cyborg android pony foal calf hare cheetah
panther lynx puma elk antelope gazelle wombat platypus opossum weasel ferret mink mole porcupine
armadillo anteater chimpanzee baboon lemur walrus eel trout cod tuna herring sardine anchovy
pike perch goldfish starfish clam mussel leech wasp hornet moth locust termite flea louse
centipede chameleon iguana cobra viper newt salamander pigeon sparrow robin magpie jay hawk
falcon vulture pelican stork heron ostrich emu seagull albatross woodpecker cuckoo lark
nightingale finch wren quail pheasant partridge cottage cabin villa mansion palace fort
cathedral pagoda monastery gallery opera clinic prison courthouse embassy parliament warehouse
workshop garage barn stable mill windmill harbour port dock pier wharf tunnel canal street
avenue alley lane path roundabout crossroads junction pavement kerb village town suburb slum
skyscraper apartment motel hostel inn supermarket kiosk runway terminal hangar hedge fence
chimney attic cellar basement hallway corridor staircase balcony terrace porch ceiling van
trailer caravan moped tricycle kayak raft barge submarine tanker glider spaceship drone zeppelin
bulldozer excavator forklift pram pushchair rollerblade armchair bench stool shelf bookcase
cupboard wardrobe drawer dresser mattress pillow blanket duvet quilt carpet rug chandelier
fireplace stove oven fridge freezer dishwasher microwave toaster saucepan frying-pan wok ladle
spatula whisk sieve grater peeler corkscrew barrel basin sink towel toothpaste hairbrush
hairdryer perfume mascara mop duster vacuum dustbin hamper ironing-board washing-machine
tumble-dryer hanger peg pliers drill chisel rake hoe wheelbarrow hose hinge lever pulley socket
wire lighter ashtray jumper sweater cardigan hoodie raincoat cloak bow-tie waistcoat apron
pyjamas nightdress dressing-gown bra sock tights beret hood shawl mitten belt braces buckle
bracelet earring brooch spectacles wig walking-stick kilt poncho forehead eyelash nostril cheek
jaw throat shoulder elbow fingernail spine rib waist hip navel thigh shin ankle toe lung liver
stomach grapefruit papaya raisin fig raspberry blackberry cranberry currant courgette parsnip
turnip beetroot leek celery spinach cauliflower asparagus artichoke bean lentil truffle almond
hazelnut cashew omelette ham roast yoghurt jam marmalade vinegar ketchup mayonnaise dough tart
muffin brownie jelly sorbet toffee fudge cola cider vodka gin oak beech birch willow spruce
cedar elm bush shrub ivy fern moss thistle nettle reed daffodil lily orchid poppy iris carnation
crocus snowdrop bluebell dandelion petal stem bark twig pinecone forest jungle meadow orchard
vineyard hill valley cliff canyon cave glacier peninsula shore bay lagoon oasis dune swamp marsh
river stream brook waterfall lake pond puddle tide geyser hail mist frost icicle storm flood
asteroid nebula horizon seascape magazine postcard diary atlas dictionary encyclopedia poem
cartoon poster portrait photograph cheque invoice contract chalk sharpener stapler calculator
scanner record-player cello clarinet oboe tuba bagpipes harmonica cymbal tambourine xylophone
puppet domino chessboard playing-card tennis-ball golf-club hockey-stick surfboard sleeping-bag
campfire barometer stretcher rifle cannon tank missile grenade cage fishing-rod rudder mast sail
propeller tyre windscreen bumper headlight pedal saddle bridle whip plough scarecrow obelisk
monument parade tournament war battle freedom sadness memory language week crowd choir jogger
lodger cobbler blacksmith goldsmith weaver potter brewer miller tanner saddler locksmith
watchmaker glazier upholsterer undertaker auctioneer optician optometrist radiologist
cardiologist geologist astronomer historian archaeologist linguist philosopher statistician
economist sociologist librarian archivist curator usher bouncer caretaker housekeeper nanny
governess babysitter lifeguard paramedic beekeeper lumberjack trapper cartographer navigator
boatswain midshipman corporal sergeant lieutenant gladiator samurai viking pharaoh sultan tsar
maharaja chieftain shaman druid hermit pilgrim beggar peasant serf nobleman courtier jester
minstrel troubadour ventriloquist magician illusionist hypnotist stuntman understudy playwright
screenwriter cameraman stagehand choreographer soprano tenor baritone cellist flautist organist
trumpeter saxophonist rapper busker gazebo pergola greenhouse allotment shed treehouse doghouse
birdhouse beehive anthill molehill haystack silo granary waterwheel watchtower drawbridge moat
dungeon crypt catacomb mausoleum steeple belfry cloister abbey convent vicarage rectory
parsonage almshouse orphanage boarding-house guesthouse penthouse bungalow igloo tepee wigwam
longhouse shipyard sawmill brewery distillery refinery quarry mineshaft oilrig pipeline aqueduct
viaduct flyover underpass footbridge causeway jetty breakwater slipway boathouse marina
hovercraft catamaran trawler frigate destroyer galleon schooner lifeboat tugboat steamboat
paddle-steamer airship biplane jumbo-jet seaplane hang-glider limousine convertible hatchback
estate-car jeep hearse snowplough combine-harvester steamroller cement-mixer dumper stagecoach
chariot unicycle tandem penny-farthing bobsleigh cable-car footstool ottoman hammock cradle
bunk-bed sideboard bookend coat-rack umbrella-stand doormat doorbell letterbox keyhole
windowsill shutter venetian-blind lampshade tablecloth napkin placemat crockery tureen
gravy-boat colander rolling-pin chopping-board cheese-grater garlic-press nutcracker
bottle-opener tin-opener thermos sugar-bowl pepper-mill toast-rack egg-cup cake-tin baking-tray
cookie-cutter pressure-cooker coffee-maker juicer blender mixer food-processor ice-tray cufflink
tie-pin suspenders garter corset petticoat bodice bonnet bowler-hat trilby sombrero earmuff
legging jumpsuit dungarees tracksuit wetsuit anorak parka duffel-coat trench-coat blazer
tailcoat moccasin clog wellington flip-flop espadrille
hexagon pentagon octagon oval ellipse rectangle trapezium parallelogram semicircle cylinder
prism sphere heptagon zigzag quadrilateral tetrahedron decagon torus fractal
""".split()
)
ICON_NOUNS = tuple(
    """
doctor teacher nurse farmer plumber carpenter barber banker chef cook soldier king queen prince
princess judge pirate cowboy clown juggler dancer singer painter actor director athlete runner
swimmer wrestler skier surfer climber gymnast friend mother father dad mom son daughter grandma
grandpa granny baby toddler child kid teenager adult student pupil professor scientist chemist
physicist biologist engineer mechanic electrician welder gardener fisherman guard detective spy
policeman fireman astronaut pilot clerk accountant dentist therapist tourist passenger
pedestrian cyclist hero villain witch wizard fairy elf troll ogre goblin ghost vampire zombie
mermaid angel devil demon phoenix robot alien cat dog horse cow pig sheep goat donkey mule lamb
kitten puppy bull ox rabbit mouse rat hamster squirrel beaver otter badger fox wolf bear lion
leopard jaguar elephant rhino hippo giraffe zebra camel llama alpaca deer moose reindeer bison
buffalo kangaroo koala raccoon skunk hedgehog sloth monkey ape gorilla orangutan bat whale
dolphin seal shark carp octopus squid jellyfish crab lobster shrimp prawn oyster snail slug worm
ant bee mosquito butterfly beetle ladybird cricket grasshopper cockroach spider scorpion tick
lizard gecko snake python crocodile alligator turtle tortoise frog toad dinosaur dragon unicorn
hen rooster chicken duck goose swan turkey dove crow eagle owl parrot peacock flamingo crane
penguin house hut castle tower church chapel temple mosque synagogue school college university
library museum theatre cinema stadium gym hospital pharmacy bank office factory farm lighthouse
bridge dam road motorway highway city capital hotel pub cafe restaurant bakery market shop store
mall station airport playground park garden lawn gate wall roof kitchen bathroom bedroom window
door floor car bus lorry truck taxi ambulance tractor motorbike motorcycle scooter bicycle tram
train locomotive wagon carriage cart sleigh sled ship boat yacht ferry canoe rowboat sailboat
plane airplane aeroplane helicopter rocket satellite balloon parachute wheelchair skateboard
table chair sofa couch desk bed curtain lamp candle candlestick mirror vase clock alarm kettle
teapot pan pot spoon fork knife bowl saucer cup mug glass jug bottle jar bucket tap bathtub
shower toilet sponge soap toothbrush razor comb lipstick broom bin basket needle thread button
zip scissors hammer screw screwdriver spanner wrench saw axe spade shovel ladder rope chain
padlock key lock bolt nut gear magnet battery plug switch cable bulb torch lantern shirt blouse
t-shirt vest jacket coat cape suit tie trousers jeans shorts skirt dress gown uniform underwear
pants stocking shoe boot sandal slipper trainer heel hat cap helmet crown tiara scarf glove
necklace watch sunglasses monocle beard moustache handbag backpack rucksack briefcase suitcase
purse wallet umbrella parasol veil turban kimono sari eye eyebrow ear nose mouth lip tooth
tongue chin neck arm wrist palm finger thumb chest breast belly leg knee foot skin bone skull
skeleton brain kidney muscle blood vein hair apple pear peach pineapple mango kiwi melon
watermelon gooseberry coconut avocado cucumber pepper chilli carrot radish potato onion garlic
cabbage lettuce kale broccoli pea maize corn mushroom peanut bread loaf bagel baguette croissant
toast sandwich burger hotdog pizza pasta spaghetti noodle rice sushi soup stew curry salad egg
bacon sausage steak meatball kebab chop cheese butter cream honey salt oil flour cake pie
pancake waffle biscuit cookie pudding custard ice-cream lollipop popcorn cracker tea juice
lemonade wine beer whisky rum champagne cocktail milkshake smoothie tree maple pine fir bamboo
clover weed cactus flower tulip daisy sunflower root branch trunk seed acorn field mountain
volcano island beach coast reef desert sea ocean wave whirlpool cloud rain rainbow snow
snowflake snowman fog ice thunder lightning tornado hurricane earthquake sunset sunrise dawn
dusk night moon planet comet meteor galaxy universe landscape skyline book newspaper letter
envelope stamp parcel notebook calendar map globe novel comic painting statue photo selfie logo
banner ticket passport coin banknote receipt pen pencil crayon brush ruler eraser paperclip
computer laptop keyboard monitor printer tablet phone telephone smartphone camera television
radio loudspeaker microphone headphones piano organ guitar violin harp flute trumpet trombone
saxophone accordion drum toy doll teddy kite yo-yo puzzle jigsaw dice racket football basketball
ski sledge skate trophy medal tent telescope microscope thermometer syringe bandage pill crutch
sword shield spear bow arrow dagger pistol bomb trap net anchor engine wheel horseshoe fountain
well grave tombstone coffin birthday wedding funeral party picnic concert festival carnival
circus race peace love justice happiness anger fear hope dream idea thought music silence noise
smell taste year month hour life death birth family team army orchestra mathematician ballerina
minaret yurt buoy gondola dinghy minibus fire-engine rickshaw toboggan funicular monorail
coaster cutlery teacup headscarf swimsuit bikini tuxedo stiletto
""".split()
)
NAMES = tuple(
    """
paris london rome berlin venice anna tom peter john lisa superman pikachu mickey barbie
spongebob mozart einstein napoleon shakespeare picasso cairo madrid moscow sydney emma george
alice charlie
sophie oliver beethoven cleopatra frankenstein gandalf sherlock tarzan zorro godzilla
""".split()
)


@cache
def seen_nouns(names: tuple[str, ...] = NOUNS) -> tuple[str, ...]:
    """Return the words of a list that training may see, as they are said."""
    return tuple(word.replace("-", " ") for k, word in enumerate(names) if k % 5)


@cache
def held_out_nouns(names: tuple[str, ...] = NOUNS) -> tuple[str, ...]:
    """Return the words of a list that only evaluation uses, as they are said."""
    return tuple(word.replace("-", " ") for k, word in enumerate(names) if k % 5 == 0)
