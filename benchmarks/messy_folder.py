"""Build a folder of images as people have them, and walk through it.

    python benchmarks/messy_folder.py --pretrained pretrained/squeezenet_v1.1 \\
        --output_dir output/messy
    python benchmarks/messy_folder.py --source photos/ --layout split --build_only \\
        --output_dir output/messy

--source is a tidy folder with a folder for each class; without it, shapes are drawn. The data/ in
output/messy gets

    images/        the messy folder: wrong labels, copies (exact, re-encoded, smaller, mirrored),
                   EXIF orientation, PNG, WebP, BMP, AVIF, .jfif, no suffix and wrong ones, a file
                   that is cut off, an HTML page called .jpg, what systems leave behind, an empty
                   folder; with --layout split, in train/ and val/
    inbox/         images that come later, in no order; some of them of a class that is new
    truth.csv      what is wrong with which file: path, kind, and the right class or the original

The walk checks the folder, fine-tunes on it, sorts the inbox, moves what was sorted wrongly, lets
the folder grow by it, and runs the same command again. Each command is shown with what it prints,
and how much of what is wrong the check has found.
"""

from __future__ import annotations

import argparse
import csv
import io
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, features

from squeezenet_paddle.checking.check import CONFLICT, DUPLICATE, LABEL
from squeezenet_paddle.datasets.folders import read_tree
from squeezenet_paddle.datasets.samples import make_sample_data
from squeezenet_paddle.files import atomic_directory

Truth = list[tuple[str, str, str]]  # path, kind, the right class or the original
ENTRIES = ("images", "inbox", "truth.csv")
JUNK = {
    "Thumbs.db": b"\xd0\xcf\x11\xe0",
    ".DS_Store": b"\0\0\0\1Bud1",
    "desktop.ini": b"[.ShellClassInfo]\n",
    "__MACOSX/._001.jpg": b"\0\5\26\7",
    "notes.txt": b"the blurred ones are Tom's\n",
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="a tidy folder (default: drawn shapes)")
    parser.add_argument("--pretrained", type=Path, help="a model directory to fine-tune")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--layout", choices=("classes", "split"), default="classes")
    parser.add_argument("--wrong", type=float, default=0.04, help="share (default: 0.04)")
    parser.add_argument("--copies", type=float, default=0.06, help="share (default: 0.06)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument("--build_only", action="store_true", help="do not walk through it")
    args = parser.parse_args(argv)
    folder: Path = args.output_dir
    source = args.source
    if source is None:
        make_sample_data(folder / "drawn", train=60, val=1)
        source = folder / "drawn" / "train"
    build(source, folder / "data", args)
    print(f"{folder / 'data' / 'images'}: built; what is wrong with it is in data/truth.csv")
    if not args.build_only:
        if args.pretrained is None:
            parser.error("--pretrained was expected, or --build_only")
        walk(folder, args.pretrained)


def build(source: Path, target: Path, args: argparse.Namespace) -> None:
    """Writes the messy folder, the inbox and the truth; the whole or nothing."""
    tree, rng = read_tree(source), np.random.default_rng(args.seed)
    truth: Truth = []
    with atomic_directory(target, ENTRIES) as folder:
        images, inbox = folder / "images", folder / "inbox"
        inbox.mkdir()
        *known, new = range(len(tree.classes))
        for label, class_name in enumerate(tree.classes):
            names = rng.permutation([tree.names[i] for i in np.flatnonzero(tree.labels == label)])
            later, count = len(names) // 6, max(8, int(len(names) * rng.uniform(0.3, 1)))
            for name in names[:later]:
                path = inbox / f"IMG_{rng.integers(10**6):06}.jpg"
                shutil.copy(source / name, path)
                truth.append((f"inbox/{path.name}", "later", class_name))
            for name in names[later : later + count * (label != new)]:
                is_wrong, shown_as = rng.random() < args.wrong, label
                if is_wrong:
                    shown_as = rng.choice([each for each in known if each != label])
                part = ("val" if rng.random() < 0.2 else "train",) * (args.layout == "split")
                place = images.joinpath(*part, tree.classes[shown_as])
                place.mkdir(parents=True, exist_ok=True)
                path = add(source / name, place, rng)
                shown = path.relative_to(folder).as_posix()
                if is_wrong:
                    truth.append((shown, "wrong label", class_name))
                if rng.random() < args.copies:
                    copy = add_copy(source / name, place, rng)
                    truth.append((copy.relative_to(folder).as_posix(), "copy", shown))
        place = images.joinpath(*part, tree.classes[0])
        for name, content in JUNK.items():
            (images / name).parent.mkdir(exist_ok=True)
            (images / name).write_bytes(content)
        (images / "empty").mkdir()
        whole = (inbox / sorted(path.name for path in inbox.iterdir())[0]).read_bytes()
        for name, content in (
            ("cut off.jpg", whole[: len(whole) // 2]),
            ("download.jpg", b"<!DOCTYPE html><title>Not found</title>"),
        ):
            (place / name).write_bytes(content)
            truth.append(((place / name).relative_to(folder).as_posix(), "unreadable", ""))
        with (folder / "truth.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "kind", "right"), *truth])


def add(image: Path, place: Path, rng: np.random.Generator) -> Path:
    """Adds an image in one of the ways in which people have them."""
    number, way = f"{rng.integers(10**6):06}", int(rng.integers(20))
    with Image.open(image) as file:
        pixels = file.convert("RGB")
    if way < 10:
        path = place / f"{number}.jpg"
        shutil.copy(image, path)
        return path
    if way < 13:  # as a phone holds it
        path, exif = place / f"IMG_{number}.JPG", Image.Exif()
        exif[0x0112] = 6  # turn clockwise
        pixels.transpose(Image.Transpose.ROTATE_90).save(path, "JPEG", quality=92, exif=exif)
        return path
    modern = "AVIF" if features.check("avif") else "WEBP"
    suffix, form = (
        *((".png", "PNG"), (".webp", "WEBP"), (".bmp", "BMP"), (".avif", modern)),
        *((".jfif", "JPEG"), ("", "JPEG"), (".jpg", "PNG")),
    )[way - 13]
    path = place / f"{number}{suffix}"
    content = io.BytesIO()
    pixels.save(content, form, max_threads=1)  # AVIF: the bytes depend on it
    path.write_bytes(content.getvalue())
    return path


def add_copy(image: Path, place: Path, rng: np.random.Generator) -> Path:
    """Adds a copy of an image: the same bytes, re-encoded, smaller or mirrored."""
    path, way = place / f"copy of {rng.integers(10**6):06}.jpg", int(rng.integers(4))
    with Image.open(image) as file:
        pixels = file.convert("RGB")
    if way == 0:
        shutil.copy(image, path)
    elif way == 1:
        pixels.save(path, quality=60)
    elif way == 2:
        pixels.resize((pixels.width // 2, pixels.height // 2)).save(path, quality=90)
    else:
        pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path, quality=95)
    return path


def walk(folder: Path, pretrained: Path) -> None:
    """Checks, fine-tunes, sorts, grows; each command with what it prints."""
    images, inbox, mine = folder / "data" / "images", folder / "data" / "inbox", folder / "mine"
    truth = read_truth(folder / "data")
    known = ("--images", images, "--pretrained", pretrained)
    finetune = ("finetune", *known, "--output_dir", mine)
    run("check-images", *known, "--output_dir", folder / "check")
    score(folder / "check" / "check.csv", images, truth)
    run(*finetune)
    sort = ("--sort_into", folder / "sorted", "--top_k", 1)
    run("infer", "--model_dir", mine, "--image", inbox, *sort)
    print("\n(by hand: what lies in a wrong folder is moved to the right one)")
    wrong = 0
    for path, kind, right in truth:
        if kind == "later":
            [sorted_into] = (folder / "sorted").rglob(Path(path).name)
            wrong += sorted_into.parent.name != right
            target = images / right / sorted_into.name
            target.parent.mkdir(exist_ok=True)
            shutil.move(sorted_into, target)
    print(f"{wrong} of {sum(kind == 'later' for _, kind, _ in truth)} images were moved")
    run(*finetune)


def score(table: Path, images: Path, truth: Truth) -> None:
    """Prints how much of what is wrong the check has found, and how much it has found wrongly."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for kind, kinds in ("wrong label", (LABEL, CONFLICT)), ("copy", (DUPLICATE, CONFLICT)):
        wanted = {path for path, each, _ in truth if each == kind}
        found = {
            f"{images.name}/{name}"
            for row in rows
            if row["finding"] in kinds
            for name in (row["image"], row["other"])
        }
        print(f"{kind}: {len(wanted & found)} of {len(wanted)} are among what the check lists")


def read_truth(folder: Path) -> Truth:
    with (folder / "truth.csv").open(newline="") as file:
        return [(path, kind, right) for path, kind, right in list(csv.reader(file))[1:]]


def run(*command: object) -> None:
    """Shows a command and runs it."""
    words = [str(word) for word in command]
    print(f"\n$ squeezenet {shlex.join(words)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "squeezenet_paddle", *words], check=False)
    if done.returncode:
        sys.exit(f"squeezenet {words[0]} ended with exit code {done.returncode}")


if __name__ == "__main__":
    main()
