"""FERDataModule: faces from any layout, served as whole uint8 batches and augmented on the device.

FER2013 fits in memory, so there are no worker processes: a batch is one index into a tensor (405,000 faces/s), goes to
the device as bytes, and becomes float and augmented there.
"""

import logging
import math
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torchvision.transforms import v2

from fer.config.errors import FerError, setting
from fer.config.settings import DataSettings
from fer.data.cache import folder_of
from fer.data.dataset import Batch, FaceDataset, as_batch, repeated, taken, to_unit
from fer.data.duplicates import digests
from fer.data.exclude import leave_out, notes
from fer.data.faces import UNKNOWN, Faces, counts
from fer.data.feature_cache import Compute, FeatureStore
from fer.data.labels import SPLITS
from fer.data.load import read_faces
from fer.data.samplers import (
    EpochBalance,
    EpochBatches,
    EpochShuffle,
    ResumableLoader,
    drops_last,
    noise_seed,
    seed_noise,
)
from fer.data.splits import assigned, twin_notes, without_conflicts
from fer.data.transforms.crop import middle
from fer.data.transforms.mixup import Mixing, one_hot
from fer.data.transforms.resize import reduced, stage_size

log = logging.getLogger(__name__)

EVERY = "all"  # in place of a split: all faces that have a label


def tell_notes(notes: Sequence[str], skipped: Sequence[str]) -> None:
    """Log what a user must know of the faces, and which bad rows or files were skipped."""
    for note in notes:
        log.info("  %s", note)
    if skipped:
        told = "  %d bad rows or files were skipped: listed in metrics.json, first: %s"
        log.warning(told, len(skipped), skipped[0])


class FERDataModule(pl.LightningDataModule):
    """Reads, splits, serves and augments.

    Args:
        data: which faces, how split, how served; ``data.path`` must be set ("synthetic" for drawn faces).
        augment: any torchvision v2 transform that takes a (B, 1, S, S) float batch in [0, 1]; None changes nothing.
        seed: of order, augmentation and dropout.
        stages: [size, epochs] one after the other, to which faces are reduced in a training; empty leaves them.
        mixing: mixes the faces of a training batch, and their labels.
        views: of each training face in its batch, one set of all faces after the other.
        even: leave an incomplete last batch out of each training epoch: a compiled network would be compiled for it.
    """

    def __init__(
        self,
        data: DataSettings,
        augment: v2.Transform | None = None,
        seed: int = 0,
        stages: Sequence[Sequence[int]] = (),
        mixing: Mixing | None = None,
        views: int = 1,
        *,
        even: bool = False,
    ) -> None:
        super().__init__()
        self.data, self.augment, self.seed, self.stages = data, augment, seed, stages
        self.mixing, self.views, self.even = mixing or Mixing(), views, even
        self.datasets: dict[str, FaceDataset] = {}
        self.laid_at = math.inf  # when the faces lay in memory, by ``time.perf_counter``

    @cached_property
    def faces(self) -> Faces:
        """The whole table."""
        return read_faces(self.data)

    @cached_property
    def splits(self) -> NDArray[np.int8]:
        """(N,) index in ``SPLITS`` of each face of the table, ``UNKNOWN`` of what ``data.exclude`` leaves out."""
        return self._divided[0]

    @property
    def excluded(self) -> dict[str, Any] | None:
        """What ``data.exclude`` leaves out, see ``leave_out``."""
        return self._divided[1]

    @property
    def notes(self) -> list[str]:
        """What a user must know of the faces: the source's notes, and what was left out."""
        return [*self.faces.source.notes, *notes(self.excluded, self.data.split), *self._divided[2]]

    @cached_property
    def _divided(self) -> tuple[NDArray[np.int8], dict[str, Any] | None, list[str]]:
        splits, excluded = leave_out(self.faces, assigned(self.faces, self.data), self.data)
        if self.data.conflicts == "keep":
            return splits, excluded, []
        kept, count = without_conflicts(self.faces, splits)
        return kept, excluded, [f"{count:,} faces left out of train by data.conflicts: twins with other labels"]

    def setup(self, stage: str | None = None) -> None:
        """Lay the splits in memory: train and val for "fit", one alone for "validate" and "test".

        Raises:
            FerError: the data are missing, bad, or cannot be split so.
        """
        for split in {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage or "fit", ()):
            self.lay(split)
        self.laid_at = min(self.laid_at, time.perf_counter())

    def lay(self, split: str) -> FaceDataset:
        """Lay a split in memory, if it is not there yet, and return it.

        Args:
            split: of ``SPLITS``, or ``EVERY`` for all faces that have a label.

        Raises:
            FerError: the data are missing, bad, or have no such split.
        """
        if split not in self.datasets:
            places = self.places(split)
            soft = None if self.faces.soft is None else self.faces.soft[places]
            self.datasets[split] = FaceDataset(taken(self.faces.images, places), self.faces.targets[places], soft)
        return self.datasets[split]

    def places(self, split: str) -> NDArray[np.int64]:
        """Return the places in the table of a split's faces.

        Raises:
            FerError: the split is empty.
        """
        if split == EVERY:
            labelled = np.flatnonzero(self.faces.targets != UNKNOWN)
            if not labelled.size:
                raise FerError(f"{self.data.path}: has no labels to score against")
            return labelled
        places = np.flatnonzero(self.splits == SPLITS.index(split))
        if not places.size:
            held = [name for index, name in enumerate(SPLITS) if (self.splits == index).any()]
            raise FerError(
                f"{self.data.path}: no {split} split under {setting('data.split', self.data.split)}; it has "
                f"{', '.join(held)}"
            )
        return places

    def train_dataloader(self) -> ResumableLoader:
        """Serve train, in a new order each epoch; faces whose batch is left out wait for another epoch."""
        dataset = self.datasets["train"]
        trainer: Any = self.trainer
        if trainer is not None and trainer.overfit_batches:  # the same few batches every epoch, of every class
            return self._loader(dataset.mixed())
        return self._loader(dataset, self.order())

    def order(self) -> EpochShuffle:
        """Return the order of the training faces, as ``data.sampler`` says."""
        dataset = self.datasets["train"]
        if self.data.sampler == "balanced":
            dataset.repeats = True
            return EpochBalance(dataset.targets, self.seed)
        return EpochShuffle(len(dataset), self.seed)

    def val_dataloader(self) -> ResumableLoader:
        """Serve val in its own order; where only a part is asked for, mixed, since a tree lists class by class."""
        dataset, trainer = self.datasets["val"], self.trainer
        whole = trainer is None or trainer.limit_val_batches == 1.0
        return self._loader(dataset if whole else dataset.mixed())

    def test_dataloader(self) -> ResumableLoader:
        """Serve test in its own order."""
        return self._loader(self.datasets["test"])

    def _loader(self, dataset: FaceDataset, sampler: EpochShuffle | None = None) -> ResumableLoader:
        size = self.data.faces_a_step
        drop = sampler is not None and drops_last(len(dataset), size, even=self.even)
        batches = EpochBatches(dataset, size, sampler, drop_last=drop)
        return ResumableLoader(dataset, batch_sampler=batches, collate_fn=as_batch)  # type: ignore[arg-type]

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Convert to float on the device; in training seed this batch's noise, augment, reduce to a stage's size, mix.

        The seed set here serves augmentation and the dropout of the step that follows. This hook runs outside autocast:
        under bf16, sampling grids would be wrong by a tenth of a pixel. Faces with features stay bytes: nobody looks.
        """
        images = batch.images if batch.features is not None else to_unit(batch.images)
        trainer = self.trainer
        if trainer is not None and trainer.training and self.views > 1:
            images, batch = images.repeat(self.views, 1, 1, 1), repeated(batch, self.views)
        if trainer is not None and trainer.training:
            seed_noise(images.device, noise_seed(self.seed, trainer.current_epoch, batch.key))
            if batch.features is None and self.augment is not None:
                images = self.augment(images)
        if trainer is not None and not trainer.training:
            images = middle(images, self.data.crop)
        if trainer is not None and self.stages and trainer.state.fn == TrainerFn.FITTING:
            images = self._reduced(images, stage_size(self.stages, trainer.current_epoch))
        if trainer is not None and trainer.training and self.mixing and batch.features is None:
            own = batch.soft if self.mixing.soft else None
            shares = one_hot(batch.targets, len(self.faces.classes)) if own is None else own
            images, shares = self.mixing(images, shares)
            return batch._replace(images=images, soft=shares, mixed=True)
        return batch._replace(images=images)

    def _reduced(self, images: Tensor, size: int) -> Tensor:
        """Return faces as they are in a stage of ``size``: crops are reduced by as much as whole faces are."""
        return reduced(images, self.data.seen(size))

    @property
    def augments(self) -> bool:
        """Whether training sees other faces than the table holds."""
        return bool(self.mixing) or self.views > 1 or not isinstance(self.augment, v2.Identity | None)

    @property
    def keeps_features(self) -> bool:
        """Whether steps begin with features that are computed already, see ``keep_features``."""
        return any(dataset.features is not None for dataset in self.datasets.values())

    def keep_features(self, splits: Sequence[str], compute: Compute, key: str) -> None:
        """Serve the faces of these splits with their features from now on, computing those that are not known yet.

        Args:
            splits: without random changes to their faces.
            compute: gives the features of faces.
            key: of all that they depend on but the faces.
        """
        store = FeatureStore(key, folder_of(self.data.cache))
        pictures = {split: self.datasets[split].images[:, 0].numpy() for split in splits}
        names = {split: digests(images) for split, images in pictures.items()}
        faces = {name: face for split in splits for name, face in zip(names[split], pictures[split], strict=True)}
        store.complete(faces, compute)
        for split in splits:
            self.datasets[split].features = store.of(names[split])

    def first_batch(self) -> NDArray[np.uint8]:
        """Return the first batch of the first epoch as training sees it, (B, T, T), the run's own noise undisturbed."""
        dataset = self.datasets["train"]
        places = self.order().indices()[: self.data.faces_a_step]
        size = stage_size(self.stages, 0) if self.stages else self.data.image_size
        return self._augmented(dataset.images[places], noise_seed(self.seed, 0, dataset.key(places)), size)

    def augmented_samples(self, count: int, variants: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return some training faces as they are, (K, S, S), and as training may see them, (K, M, T, T).

        Args:
            count: faces, K, drawn by the run's seed.
            variants: of each, M.
        """
        dataset = self.datasets["train"]
        images = dataset.images[EpochShuffle(len(dataset), self.seed).indices()[:count]]
        several = images.repeat_interleave(variants, 0)
        drawn = self._augmented(several, noise_seed(self.seed, 0, -2), self.data.image_size)
        return images[:, 0].numpy(), drawn.reshape(len(images), variants, *drawn.shape[1:])

    def _augmented(self, images: Tensor, seed: int, size: int) -> NDArray[np.uint8]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            changed = to_unit(images) if self.augment is None else self.augment(to_unit(images))
            changed = self._reduced(changed, size)
            if self.mixing:
                changed, _ = self.mixing(changed, torch.zeros(len(changed), 1))
        return changed[:, 0].mul(255).round_().clamp_(0, 255).to(torch.uint8).numpy()

    def statistics(self) -> tuple[float, float]:
        """Return mean and standard deviation of the training pixels, of values in [0, 1]."""
        pixels = self.datasets["train"].images.numpy().reshape(-1)
        pairs = pixels[: pixels.size // 2 * 2].view(np.uint16)  # half as many to count
        counted = np.zeros(1 << 16, np.int64)
        for start in range(0, len(pairs), 1 << 20):  # bincount widens to int64: keep its copy small
            counted += np.bincount(pairs[start : start + (1 << 20)], minlength=1 << 16)
        table = counted.reshape(256, 256)  # of both of a pair
        histogram = table.sum(0) + table.sum(1)
        histogram[pixels[pairs.size * 2 :]] += 1
        values = np.arange(256) / 255
        mean = float((histogram * values).sum() / histogram.sum())
        variance = float((histogram * (values - mean) ** 2).sum() / histogram.sum())
        return mean, max(variance**0.5, 1 / 255)  # all-black faces have no spread to divide by

    def class_counts(self) -> Tensor:
        """Return (C,) number of training faces of each class."""
        return torch.bincount(self.datasets["train"].targets, minlength=len(self.faces.classes))

    def hashes(self, split: str) -> set[bytes]:
        """Return the hashes of the pixels of a split's faces.

        Raises:
            FerError: the split is empty.
        """
        return set(digests(self.faces.images[self.places(split)]))

    def describe(self, split: str | None = None) -> dict[str, Any]:
        """Return what a result must say of its data, as plain values.

        Args:
            split: of the result; ``EVERY`` asks for no split of the data, which may have none.
        """
        source, whole = self.faces.source, split == EVERY
        splits = np.zeros(len(self.faces), np.int8) if whole else self.splits
        held = counts(self.faces.targets, splits, self.faces.classes)
        return {
            "name": source.name,
            "path": source.path,
            "layout": source.layout,
            "labels": source.labels,
            "split": EVERY if whole else self.data.split,
            "split_seed": self.data.split_seed,
            **({"folds": self.data.folds, "fold": self.data.fold} if self.data.split == "folds" else {}),
            "fingerprint": self.faces.fingerprint(),
            "counts": {EVERY: held["train"]} if whole else held,
            "excluded": None if whole else self.excluded,
            "notes": list(source.notes) if whole else [*self.notes, *twin_notes(self.faces, self.splits)],
            "skipped": list(source.skipped),
        }
