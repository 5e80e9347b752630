"""Early stopping that a resumed run remembers."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping


class Patience(EarlyStopping):
    """Lightning's early stopping; a resumed run that had already stopped trains no further epoch."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once if the run had already waited for all epochs of its patience."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True
