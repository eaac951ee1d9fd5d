"""Small data sets for tests, written as files in PASCAL VOC's and COCO's forms."""

import json
import struct

import cv2
import numpy as np


def image(path, width=60, height=40, turn=None):
    """Write an image; `turn` is EXIF's orientation (6: shown turned by 90 degrees), JPEG only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows * 3, columns * 2, rows + columns], axis=2).astype(np.uint8)
    ok, data = cv2.imencode(path.suffix, pixels)
    assert ok
    data = data.tobytes()
    if turn is not None:
        data = data[:2] + exif(turn) + data[2:]
    path.write_bytes(data)
    return path


def exif(orientation):
    """The APP1 segment of a JPEG that says how to turn it."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    body = b"Exif\0\0" + b"MM\0\x2a" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def objects_xml(objects):
    """<object> elements of (name, (xmin, ymin, xmax, ymax)[, difficult])."""
    corners = ("xmin", "ymin", "xmax", "ymax")
    text = ""
    for name, box, *difficult in objects:
        bounds = "".join(f"<{c}>{v}</{c}>" for c, v in zip(corners, box))
        flag = f"<difficult>{difficult[0]}</difficult>" if difficult else ""
        text += f"<object><name>{name}</name>{flag}<bndbox>{bounds}</bndbox></object>"
    return text


def annotation(path, objects=(), size=(60, 40), file_name=""):
    """Write an annotation in VOC's form."""
    path.parent.mkdir(parents=True, exist_ok=True)
    inner = f"<filename>{file_name}</filename>"
    if size:
        inner += f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    path.write_text(f"<annotation>{inner}{objects_xml(objects)}</annotation>", encoding="utf-8")
    return path


def voc(root, images, splits=None):
    """Write a folder in VOC's layout; `images` {name: objects}, `splits` {split: names}."""
    for name, objects in images.items():
        image(root / "JPEGImages" / f"{name}.jpg")
        annotation(root / "Annotations" / f"{name}.xml", objects)
    for split, names in (splits or {}).items():
        path = root / "ImageSets" / "Main" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return root


def coco(root, images, annotations, categories=None, file="instances.json"):
    """Write root/FILE and root/images/; `images` are ids (60 x 40 pixels) or whole entries."""
    entries = [
        i if isinstance(i, dict) else {"id": i, "file_name": f"{i}.jpg", "width": 60, "height": 40}
        for i in images
    ]
    for entry in entries:
        if isinstance(entry.get("file_name"), str):
            image(root / "images" / entry["file_name"])
    content = {
        "images": entries, "annotations": annotations,
        "categories": categories or [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    }  # fmt: skip
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return f"coco:{path}:{root / 'images'}"
