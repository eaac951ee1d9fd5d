"""Detect objects in photographs: pictures and a JSON file (py-faster-rcnn: tools/demo.py)."""

import json
import os
import sys
from pathlib import Path

from caffe.flags import command
from caffe.log import init_log, log
from demitasse.detection.commandline import (
    add_common_flags,
    make_parser,
    resolve_config,
    resolve_device,
)
from demitasse.detection.datasets import get_imdb
from demitasse.detection.datasets.image_files import EXTENSIONS
from demitasse.detection.detector import Detector, pixels
from demitasse.detection.opening import find_model
from demitasse.detection.visualize import draw_detections, save_image
from demitasse.engine.errors import DataError
from demitasse.engine.files import atomic_write

_FOLDER = os.path.join("data", "demo")
_SHAPES = 6  # drawn images, where there are no photographs


def parse_args(argv):
    """The namespace of a command line."""
    parser = make_parser("Detect objects in images.")
    parser.add_argument(
        "images", nargs="*", help="files or folders (default: data/demo, or else drawn shapes)"
    )
    add_common_flags(parser)
    parser.add_argument(
        "--net",
        help="a trained detector's prototxt; with --weights any definition; with --def the "
        "weights; or vgg16 (without --net) or zf for the detectors that py-faster-rcnn has "
        "published",
    )  # fmt: skip
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--weights", metavar="FILE", help="the weights, if not those of --net")
    either.add_argument(
        "--def", dest="prototxt", metavar="FILE", help="the definition, if not that of --net"
    )
    parser.add_argument("--threshold", type=float, default=0.8, help="the least score")
    parser.add_argument(
        "--out", "--output", metavar="FOLDER", default=os.path.join("output", "demo"),
        help="what is written to",
    )  # fmt: skip
    return parser.parse_args(argv)


def find_images(words):
    """[(name, path or pixels)]: of files, of those in folders, or of what there is without any."""
    if not words:
        if os.path.isdir(_FOLDER):
            return find_images([_FOLDER])
        records = get_imdb(f"shapes_test:{_SHAPES}").records
        return [(record.name, record.read()) for record in records]
    paths = []
    for word in words:
        if os.path.isdir(word):
            inside = sorted(p for p in Path(word).rglob("*") if p.suffix.lower() in EXTENSIONS)
            if not inside:
                raise DataError(word, f"images ({', '.join(EXTENSIONS)})", "none")
            paths += map(str, inside)
        else:
            paths.append(word)
    return [(path, path) for path in paths]


def picture_names(names):
    """A file name for each image, from its own name; with a number where two are the same."""
    stems, taken = [Path(name).stem for name in names], {}
    result = []
    for stem in stems:
        taken[stem] = taken.get(stem, 0) + 1
        number = f"_{taken[stem]}" if taken[stem] > 1 else ""
        result.append(f"{stem}{number}.jpg")
    return result


@command
def main(argv=None):
    """Run the command line `argv`."""
    args = parse_args(argv)
    init_log()
    images = find_images(args.images)
    definition = args.prototxt or args.net or "vgg16"
    weights = args.net if args.prototxt else args.weights
    model = find_model(definition, weights, resolve_config(args).DATA_DIR)
    cfg = resolve_config(args, model.cfg)
    detector = Detector(model.definition, model.weights, model.classes, cfg, resolve_device(args))
    os.makedirs(args.out, exist_ok=True)
    names = picture_names([name for name, _ in images])
    results = []
    all_found = detector.detect_each([image for _, image in images], args.threshold)
    for (name, image), file, found in zip(images, names, all_found):
        if isinstance(found, DataError):
            log(f"Left out: {found}")
            continue
        picture = os.path.join(args.out, file)
        save_image(picture, draw_detections(pixels(image), found, detector.classes))
        print(f"{name}: {', '.join(f'{d.label} {d.score:.3f}' for d in found) or 'nothing'}")
        rows = [{**d._asdict(), "box": [round(v, 2) for v in d.box]} for d in found]
        results.append({"image": name, "picture": picture, "detections": rows})
    if not results:
        raise DataError(" ".join(args.images), "images that can be read", "none")
    path = os.path.join(args.out, "detections.json")
    with atomic_write(path) as out:
        out.write(json.dumps(results, indent=1).encode())
    print(f"Wrote pictures and {path}")


if __name__ == "__main__":
    sys.exit(main())
