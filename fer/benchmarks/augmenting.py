"""Speed of augmentation: whole batches, compared with Pillow face by face."""

from collections.abc import Callable
from statistics import median
from typing import Any

from fer.benchmarks.measurement import ROUNDS, Measurement, at_least, cpu_seconds


def augmenting() -> list[Measurement]:
    """Measure whole-batch augmentation and a chain of Pillow operations for each face, on one processor thread."""
    import torch
    from torchvision.transforms import v2

    from fer.config.settings import AugmentSettings
    from fer.data.dataset import to_unit
    from fer.data.readers.drawing import draw_faces
    from fer.data.transforms.augment import build
    from fer.system import machine

    machine.keep_freed_memory()  # as fer.train does
    torch.set_num_threads(1)
    images = torch.from_numpy(draw_faces(128)[0])[:, None]  # (128, 1, 48, 48) uint8
    crop = build(AugmentSettings(flip=0.5, crop_padding=4))
    affine = build(AugmentSettings(flip=0.5, rotate_degrees=10, zoom=0.1, shift=0.1))
    chain = v2.Compose(
        [
            v2.ToPILImage(),
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(10, (0.1, 0.1), (0.9, 1.1)),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )

    def by_batch(transform: v2.Transform) -> Callable[[], Any]:
        return lambda: [transform(to_unit(images)) for _ in range(20)]

    def one_by_one() -> Any:
        return torch.stack([chain(image) for image in images])

    speeds: dict[str, list[float]] = {"crop": [], "affine": [], "chain": []}
    for _ in range(ROUNDS + 1):
        speeds["crop"].append(20 * 128 / cpu_seconds(by_batch(crop)))
        speeds["affine"].append(20 * 128 / cpu_seconds(by_batch(affine)))
        speeds["chain"].append(128 / cpu_seconds(one_by_one))
    crop_speed, affine_speed, chain_speed = (median(values[1:]) for values in speeds.values())  # the first warms up
    return [
        at_least("augmenting on one thread, crop + flip", crop_speed, "images/s", 70_000),
        at_least("augmenting on one thread, affine + flip", affine_speed, "images/s", 50_000),
        Measurement("augmenting on one thread, Pillow face by face", chain_speed, "images/s"),
        at_least("augmenting, affine / Pillow face by face", affine_speed / chain_speed, "times", 10),
    ]
