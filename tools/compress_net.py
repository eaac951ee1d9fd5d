"""Split fully connected layers by truncated SVD (Fast R-CNN: tools/compress_net.py)."""

import os
import sys

from caffe.flags import command
from demitasse.detection import bundle
from demitasse.detection.commandline import add_model_flags, make_parser, model_of
from demitasse.detection.compress import compress_definition, compress_weights, ranks_of
from demitasse.engine import weights as weight_files
from demitasse.engine.errors import DataError
from demitasse.engine.net import Net
from demitasse.engine.phase import Phase
from demitasse.engine.prototxt import read_net, write_text

_RANKS = ("fc6", "1024", "fc7", "256")


def parse_args(argv):
    """The namespace of a command line."""
    parser = make_parser("Split a net's fully connected layers in two by truncated SVD.")
    add_model_flags(parser)
    parser.add_argument("--data_dir", default="data", help="where published detectors lie")
    ranks = parser.add_mutually_exclusive_group()
    ranks.add_argument(
        "--def-svd", metavar="FILE", help="a definition with layers NAME_L and NAME_U to fill"
    )
    ranks.add_argument(
        "--rank", nargs="+", default=_RANKS, metavar="LAYER N", help="how many columns are kept"
    )
    parser.add_argument(
        "--out", "--output", metavar="STEM",
        help="the new files are STEM.prototxt, STEM.caffemodel and, of a trained detector, "
        "STEM.yml (default: the weights' name with _svd and the ranks, beside them)",
    )  # fmt: skip
    return parser.parse_args(argv)


def read_ranks(words):
    """{layer name: rank} from LAYER N LAYER N ..."""
    if len(words) % 2 or not all(n.isdecimal() for n in words[1::2]):
        raise DataError("--rank", "pairs of a layer's name and a number", " ".join(words))
    return {name: int(n) for name, n in zip(words[::2], words[1::2])}


def print_table(results):
    """Print what became of each layer."""
    for r in results:
        print(
            f"{r.name}: {r.outputs} x {r.inputs}, rank {r.rank}: relative error {r.error:.4f}, "
            f"{r.before:,} -> {r.after:,} weights"
        )
    before, after = sum(r.before for r in results), sum(r.after for r in results)
    print(f"{before - after:,} weights saved ({1 - after / before:.1%} of these layers)")


@command
def main(argv=None):
    """Run the command line `argv`."""
    args = parse_args(argv)
    model = model_of(args, args.data_dir)
    definition = read_net(model.definition)
    if args.def_svd:
        small_definition = read_net(args.def_svd)
        ranks = ranks_of(small_definition)
    else:
        ranks = read_ranks(args.rank)
        small_definition = compress_definition(definition, ranks)
    net, small = (
        Net(d, Phase.TEST, stages=("rpn", "fast_rcnn")) for d in (definition, small_definition)
    )
    weight_files.copy_from(net, model.weights)
    print_table(compress_weights(net, small, ranks))
    name = "_".join([model.name, "svd", *(f"{k}_{n}" for k, n in ranks.items())])
    stem = args.out or os.path.join(os.path.dirname(model.weights), name)
    os.makedirs(os.path.dirname(stem) or ".", exist_ok=True)
    endings = ["prototxt", "caffemodel"]
    if model.cfg is not None:
        bundle.save(stem, small, small_definition, model.classes, model.cfg)
        endings.append("yml")
    else:
        weight_files.save(small, f"{stem}.caffemodel")
        write_text(small_definition, f"{stem}.prototxt")
    print(f"Wrote {', '.join(f'{stem}.{ending}' for ending in endings)}")


if __name__ == "__main__":
    sys.exit(main())
