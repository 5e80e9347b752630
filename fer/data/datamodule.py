"""FERDataModule: faces from any layout, served as batches.

Batches are whole, of uint8, and augmented on the device. FER2013 fits in memory, so that no worker processes are
needed: a batch is one index into a tensor (405,000 faces/s). It is copied to the device as bytes, and converted to
float and augmented there, with parameters drawn for each face.
"""

import copy
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torchvision.transforms import v2

from fer.config.errors import FerError, setting
from fer.config.settings import DataSettings
from fer.data.dataset import Batch, FaceDataset, as_batch, repeated, to_unit
from fer.data.noise import Part, noise_seed, parted, seed_noise, shared
from fer.data.rows import outside, statistics
from fer.data.samplers import EpochBalance, EpochBatches, EpochShares, EpochShuffle, ResumableLoader, drops_last
from fer.data.table import Table
from fer.data.transforms.mixup import Mixing, one_hot
from fer.data.transforms.size import middle, reduced, stage_size
from fer.system import ranks
from fer.system.ranks import Rank


class FERDataModule(Table, pl.LightningDataModule):
    """Reads faces, splits them (``Table``), and serves them in augmented batches.

    Args:
        data: the data settings; ``data.path`` must be set ("synthetic" for drawn faces).
        augment: any torchvision v2 transform of a (B, 1, S, S) float batch in [0, 1]; None for no augmentation.
        seed: of order, augmentation and dropout.
        stages: [size, epochs] of each stage of progressive resizing; empty for the full size throughout.
        mixing: mixes the faces of a training batch, and their labels.
        views: number of augmented copies of each training face in its batch, one whole set after the other.
        drop_last: whether an incomplete last training batch is left out; a compiled network would compile for it again.
        rank: this process among those that share the batches; None is ``fer.system.ranks.current()``.
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
        drop_last: bool = False,
        rank: Rank | None = None,
    ) -> None:
        pl.LightningDataModule.__init__(self)
        Table.__init__(self, data)
        self.rank = ranks.current() if rank is None else rank
        self.augment, self.seed, self.stages = augment, seed, stages
        self.mixing, self.views, self.drop_last = mixing or Mixing(), views, drop_last
        self.datasets: dict[str, FaceDataset] = {}
        self.loaded_at = math.inf  # time at which the faces were in memory, by ``time.perf_counter``

    def replaced(
        self,
        *,
        data: DataSettings | None = None,
        stages: Sequence[Sequence[int]] | None = None,
        mixing: Mixing | None = None,
    ) -> "FERDataModule":
        """Return a data module that serves the same loaded faces with other settings; this one does not change.

        Args:
            data: settings that differ in the batch size alone.
            stages: of the training.
            mixing: of training batches.
        """
        module = copy.copy(self)
        module.data = self.data if data is None else data
        module.stages = self.stages if stages is None else stages
        module.mixing = self.mixing if mixing is None else mixing
        return module

    def setup(self, stage: str | None = None) -> None:
        """Load train and val into memory; test is read by evaluations alone.

        Raises:
            FerError: the data are missing or bad, the split rule does not apply to them, or no face shows contempt, and
                ``data.classes=8``.
        """
        if len(self.faces.classes) < self.data.classes:
            raise FerError(
                f"{setting('data.classes', 8)}: {self.faces.source.path} labels no face as contempt; FER+ does "
                f"({setting('data.labels', 'ferplus')} and {setting('data.votes')}), otherwise set "
                f"{setting('data.classes', 7)}"
            )
        for split in ("train", "val"):
            if split not in self.datasets:
                self.datasets[split] = FaceDataset.of(self.split(split))
        self.loaded_at = min(self.loaded_at, time.perf_counter())

    def train_dataloader(self) -> ResumableLoader:
        """Serve train in a new order each epoch; faces of a batch that is left out are used in other epochs."""
        dataset = self.datasets["train"]
        trainer: Any = self.trainer
        if trainer is not None and trainer.overfit_batches:  # the same few each epoch, with faces of every class
            return self._loader(dataset.shuffled())
        return self._loader(dataset, self.order())

    def order(self) -> EpochShuffle:
        """Return the sampler of the training faces that ``data.sampler`` and ``data.weights`` name."""
        dataset, balanced = self.datasets["train"], self.data.sampler == "balanced"
        if self.sets is not None and self.sets.shares is not None:
            dataset.repeats = True
            numbers = torch.from_numpy(self.sets.numbers[self.indices("train")].astype(np.int64))
            return EpochShares(numbers, self.sets.shares, self.seed, dataset.targets if balanced else None)
        if balanced:
            dataset.repeats = True
            return EpochBalance(dataset.targets, self.seed)
        return EpochShuffle(len(dataset), self.seed)

    def val_dataloader(self) -> ResumableLoader:
        """Serve val in the order of the source; a part of val in a random order, since folders are listed by class."""
        dataset = self.datasets["val"]
        limit = 1.0 if self.trainer is None else self.trainer.limit_val_batches
        whole = isinstance(limit, float) and limit == 1  # the integer 1 is one batch
        return self._loader(dataset if whole else dataset.shuffled())

    def _loader(self, dataset: FaceDataset, sampler: EpochShuffle | None = None) -> ResumableLoader:
        size = self.data.faces_a_step
        drop = sampler is not None and drops_last(len(dataset), size, drop_last=self.drop_last, ranks=self.rank.count)
        # mixing needs the whole batch: partners may be faces of other ranks
        whole = sampler is not None and self._mixes_whole
        batches = EpochBatches(dataset, size, sampler, drop_last=drop, rank=Rank() if whole else self.rank)
        return ResumableLoader(dataset, batch_sampler=batches, collate_fn=as_batch)  # type: ignore[arg-type]

    @property
    def _mixes_whole(self) -> bool:
        """Whether each rank mixes the whole batch, and takes its part afterwards."""
        return self.rank.several and bool(self.mixing)

    def _part_of(self, batch: Batch) -> Part:
        faces = len(batch.targets) // self.views
        return Part(*parted(faces, self.rank.number, self.rank.count), faces, self.rank.count, self.views)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Convert to float on the device; in training also seed the noise, augment, resize and mix.

        The seed serves the augmentation and the dropout of the following step. Lightning runs this hook outside
        autocast: under bf16, sampling grids would be wrong by a tenth of a pixel. Faces with cached features stay
        bytes, since the network does not use their pixels. Ranks draw the noise of the whole batch, see ``noise``.
        """
        images = batch.images if batch.features is not None else to_unit(batch.images)
        trainer = self.trainer
        if trainer is not None and trainer.training and self.views > 1:
            images, batch = images.repeat(self.views, 1, 1, 1), repeated(batch, self.views)
            batch = batch._replace(part=batch.part and batch.part._replace(views=self.views))
        if trainer is not None and trainer.training:
            seed_noise(images.device, noise_seed(self.seed, trainer.current_epoch, batch.key))
            if batch.features is None and self.augment is not None:
                with shared(batch.part):
                    images = self.augment(images)
        if trainer is not None and not trainer.training:
            images = middle(images, self.data.crop)
        if trainer is not None and self.stages and trainer.state.fn == TrainerFn.FITTING:
            size = stage_size(self.stages, trainer.current_epoch)
            images = reduced(images, self.data.input_side(size))  # crops are reduced as whole faces are
        if trainer is not None and trainer.training and self.mixing and batch.features is None:
            soft = batch.soft if self.mixing.soft else None
            shares = one_hot(batch.targets, len(self.faces.classes)) if soft is None else soft
            images, shares = self.mixing(images, shares)
            batch = batch._replace(images=images, soft=shares, mixed=True)
            return batch.of_part(self._part_of(batch)) if self._mixes_whole else batch
        return batch._replace(images=images)

    @property
    def augments(self) -> bool:
        """Whether training faces are changed at random: augmented, mixed or repeated."""
        return bool(self.mixing) or self.views > 1 or not isinstance(self.augment, v2.Identity | None)

    @property
    def keeps_features(self) -> bool:
        """Whether batches contain cached features, see ``FeatureStore.serve``."""
        return any(dataset.features is not None for dataset in self.datasets.values())

    def statistics(self) -> tuple[float, float]:
        """Return mean and standard deviation of the training pixels, as values in [0, 1]."""
        train = self.datasets["train"]
        return statistics(train.images.numpy() if outside(train.grey) is None else train.grey)

    def class_counts(self) -> Tensor:
        """Return the number of training faces of each class, (C,); with ``data.weights`` the mean of an epoch's."""
        targets, classes = self.datasets["train"].targets, len(self.faces.classes)
        if self.sets is None or self.sets.shares is None:
            return torch.bincount(targets, minlength=classes)
        numbers = torch.from_numpy(self.sets.numbers[self.indices("train")])
        of_sets = [
            torch.bincount(targets[numbers == number], minlength=classes) for number in range(len(self.sets.each))
        ]
        drawn = zip(of_sets, self.sets.in_an_epoch(self.splits), strict=True)
        return torch.stack([counts * (faces / counts.sum()) for counts, faces in drawn]).sum(0)
