"""A peer package, run in an interpreter of its own.

The command is ``PYTHON -I peer_worker.py JOB.json ANSWER.json``. The job names the package, pictures, and a file of
cut-out faces with their box. The answer has versions, boxes, emotions and times, or the reason why there are none.
Nothing of this library is imported here: a peer has its name.
"""

import importlib
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Answer = Callable[..., list[Any]]  # of a picture (H, W, 3) BGR, and a box or None: the faces


def peer_fer() -> Answer:
    """Return what the index's ``fer`` answers."""
    detector = importlib.import_module("fer.fer").FER()

    def answer(picture: Any, box: Any = None) -> list[Any]:
        faces = detector.detect_emotions(picture, None if box is None else [tuple(box)])
        return [{"box": [int(value) for value in face["box"]], "emotions": face["emotions"]} for face in faces]

    return answer


def peer_deepface() -> Answer:
    """Return what ``deepface`` answers; a box is cut out and given without detection."""
    analyze = importlib.import_module("deepface.DeepFace").analyze

    def answer(picture: Any, box: Any = None) -> list[Any]:
        if box is not None:
            x, y, width, height = box
            picture = picture[y : y + height, x : x + width]
        search = "opencv" if box is None else "skip"
        faces = analyze(picture, actions=["emotion"], detector_backend=search, enforce_detection=False, silent=True)
        return [
            {
                "box": [face["region"][key] for key in "xywh"],
                "emotions": {name: value / 100 for name, value in face["emotion"].items()},
            }
            for face in faces
        ]

    return answer


def work(job: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the answer to a job."""
    import cv2

    cv2.setNumThreads(1)
    answer = {"fer": peer_fer, "deepface": peer_deepface}[job["package"]]()
    measured: Any = {
        "version": importlib.metadata.version(job["package"]),
        "pictures": [answer(cv2.imread(picture)) for picture in job["pictures"]],
    }
    if job["faces"]:
        faces, box = np.load(job["faces"]), job["box"]
        pictures = [cv2.cvtColor(face, cv2.COLOR_GRAY2BGR) for face in faces]
        answer(pictures[0], box)  # warms up
        began = time.process_time()
        measured["faces"] = [answer(picture, box)[0]["emotions"] for picture in pictures]
        measured["seconds"] = time.process_time() - began
    answered: Mapping[str, Any] = measured
    return answered


if __name__ == "__main__":
    with open(sys.argv[1]) as stream:
        given = json.load(stream)
    try:
        result = work(given)
    except (Exception, SystemExit) as error:  # a peer may raise anything; the reason is reported
        result = {"reason": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    with open(sys.argv[2], "w") as stream:
        json.dump(result, stream)
