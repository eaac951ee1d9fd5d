"""OpenCV on one thread: `from ..engine.opencv import cv2`, in place of `import cv2`.

OpenCV's own threads, as many as processors whatever the affinity, would run beside the kernels'.
Images are prepared by reader threads (`layers.prefetch`), so one thread for each is enough. The
limit holds for the whole process; a program that wants more calls `cv2.setNumThreads` afterwards.
"""

import cv2

cv2.setNumThreads(1)

__all__ = ["cv2"]
