"""The arguments of `models`. Standard library only."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Puts `list`, `add` and `remove` into the parser of `models`; without one of them it lists."""
    parser.set_defaults(action="list")
    actions = parser.add_subparsers(dest="action", metavar="{list,add,remove}")
    actions.add_parser("list", help="what is in the models folder, and what can be added by name")
    add = actions.add_parser(
        "add",
        help="add a file of yours, an address, or a model of the list by its name",
        description="Private and gated files of the hub need a token in HF_TOKEN. What Ctrl-C or a broken line "
        "leaves undone goes on when the same command is typed again.",
    )
    add.add_argument("source", metavar="FILE|URL|NAME", help="what to add")
    add.add_argument("--kind", help="what it is, such as lora or checkpoint; else its header tells")
    add.add_argument("--name", help="the file name to give it")
    add.add_argument("--sha256", help="what the hash must be")
    add.add_argument("--force", action="store_true", help="replace a file of the same name")
    add.add_argument(
        "--allow-pickle",
        action="store_true",
        help="take .ckpt, .pt, .pth and .bin too, which can hold programs: only from people you trust",
    )
    remove = actions.add_parser("remove", help="remove a model, by its name")
    remove.add_argument("name", metavar="NAME", nargs="?", help="its name, also without folder and ending")
    remove.add_argument("--unfinished", action="store_true", help="remove what broken-off downloads left")
    remove.add_argument("--yes", action="store_true", help="do not ask")
