"""Data sets of annotated images, as records: PASCAL VOC, COCO, and one that is drawn."""
