#!/bin/sh
# data_images.sh - the sets of pictures of the benchmarks, from packages.
#
#   KINDRED_BUILD=build/release sh tests/bench/data_images.sh FOLDER [SET ...]
#
# Makes FOLDER/SET-train.pictures and FOLDER/SET-test.pictures, where SET is
#
#   fashion    Fashion-MNIST: 60,000 + 10,000 grey pictures of clothes, 28 x 28,
#              10 classes. Debian package dataset-fashion-mnist (MIT).
#   emoji32    Colour pictures of things as four vendors draw them, 32 x 32 and
#   emoji64    64 x 64: npm packages emoji-datasource-{apple,google,twitter,
#              facebook} (MIT; the drawings are the vendors'). The label is the
#              category (food & drink, animals & nature, ...), a thing is one
#              emoji. Every tenth emoji is for the test, in all four drawings;
#              variations of skin are left out.
#   clipart32  Drawings in colour of openclipart-png (Debian, public domain),
#   clipart64  at 32 x 32 and 64 x 64; the label is the folder (animals, food,
#              transportation, ...). Every tenth file is for the test.
#
# All by default. What is there already is not made again. The packages are
# unpacked below FOLDER/packages and nothing is installed, but the program
# that reads them is built when it is missing. Nothing here is part of the
# product, and none of the pictures may be committed.
set -eu

: "${KINDRED_BUILD:=build/release}"
cd "$(dirname "$0")/../.."
[ $# -ge 1 ] || {
    sed -n '2,25s/^# \{0,1\}//p' "$0"
    exit 2
}
mkdir -p "$1"
folder=$(cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- fashion emoji32 emoji64 clipart32 clipart64
packages=$folder/packages
make_set=$KINDRED_BUILD/tests/bench/make_image_set
[ -x "$make_set" ] || make "B=$KINDRED_BUILD" "$make_set"

# A Debian package's files below $packages/NAME, without installing it.
debian() {
    [ ! -d "$packages/$1" ] || return 0
    mkdir -p "$packages/download"
    (
        cd "$packages/download"
        apt-get download "$1" >/dev/null || {
            apt-get update >/dev/null
            apt-get download "$1" >/dev/null
        }
        dpkg-deb -x "$1"_*.deb "$packages/$1.new"
        rm -f "$1"_*.deb
    )
    mv "$packages/$1.new" "$packages/$1"
}

npm_package() { # NAME@VERSION: its files below $packages/NAME
    name=${1%@*}
    [ ! -d "$packages/$name" ] || return 0
    mkdir -p "$packages/download" "$packages/$name.new"
    (
        cd "$packages/download"
        npm pack --silent "$1" >/dev/null
        tar xzf "$name"-*.tgz --strip-components=1 -C "$packages/$name.new" \
            package/emoji.json "package/img/${name##*-}/64"
        rm -f "$name"-*.tgz
    )
    mv "$packages/$name.new" "$packages/$name"
}

fashion() {
    debian dataset-fashion-mnist
    from=$packages/dataset-fashion-mnist/usr/share/datasets/fashion-mnist
    for part in train t10k; do
        gzip -dc "$from/$part-images-idx3-ubyte.gz" >"$folder/images"
        gzip -dc "$from/$part-labels-idx1-ubyte.gz" >"$folder/labels"
        case $part in train) to=train ;; *) to=test ;; esac
        "$make_set" idx "$folder/images" "$folder/labels" \
            "$folder/fashion-$to.pictures"
        rm -f "$folder/images" "$folder/labels"
    done
}

# The lists of emoji: category and number of each, skin tones left out.
emoji() { # SIDE
    for vendor in apple google twitter facebook; do
        npm_package "emoji-datasource-$vendor@16.0.0"
    done
    node -e '
        const [packages, folder] = process.argv.slice(1)
        const fs = require("fs")
        const all = JSON.parse(fs.readFileSync(
            packages + "/emoji-datasource-apple/emoji.json"))
            .filter(e => e.category !== "Component")
            .sort((a, b) => a.sort_order - b.sort_order)
        const label = new Map()
        const lines = { train: [], test: [] }
        all.forEach((e, thing) => {
            if (!label.has(e.category)) label.set(e.category, label.size)
            for (const v of ["apple", "google", "twitter", "facebook"]) {
                const f = `${packages}/emoji-datasource-${v}/img/${v}/64/` +
                    e.image
                if (e["has_img_" + v] && fs.existsSync(f))
                    lines[thing % 10 ? "train" : "test"].push(
                        `${f}\t${label.get(e.category)}\t${thing}\n`)
            }
        })
        for (const part in lines)
            fs.writeFileSync(`${folder}/emoji-${part}.list`,
                lines[part].join(""))
    ' "$packages" "$folder"
    lists "emoji" "$1"
}

clipart() { # SIDE
    debian openclipart-png
    find "$packages/openclipart-png/usr/share/openclipart/png" \
        -name '*.png' -type f | LC_ALL=C sort | awk -v folder="$folder" '
        {
            rest = $0
            sub(/.*\/openclipart\/png\//, "", rest)
            split(rest, part, "/")
            file[NR] = $0
            class[NR] = part[1]
            n[part[1]]++
        }
        END {
            # classes of at least 50 pictures that name a kind of thing
            for (i = 1; i <= NR; i++) {
                c = class[i]
                if (n[c] < 50 || c ~ /^(unsorted|special|shapes)$/) continue
                if (!(c in label)) label[c] = n_labels++
                part_name = kept++ % 10 == 0 ? "test" : "train"
                printf "%s\t%d\t%d\n", file[i], label[c], i > \
                    (folder "/clipart-" part_name ".list")
            }
        }'
    lists clipart "$1"
}

lists() { # NAME SIDE: the lists into sets
    for part in train test; do
        "$make_set" list "$folder/$1-$part.list" "$2" 3 \
            "$folder/$1$2-$part.pictures"
        rm -f "$folder/$1-$part.list"
    done
}

for set in "$@"; do
    if [ -s "$folder/$set-train.pictures" ] &&
        [ -s "$folder/$set-test.pictures" ]; then
        continue
    fi
    case $set in
    fashion) fashion ;;
    emoji32 | emoji64) emoji "${set#emoji}" ;;
    clipart32 | clipart64) clipart "${set#clipart}" ;;
    *)
        echo "unknown set: $set" >&2
        exit 2
        ;;
    esac
done
