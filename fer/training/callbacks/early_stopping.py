"""Training ends where nothing improves."""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping


class Patience(EarlyStopping):
    """Lightning's early stopping, which a resumed run that had stopped already does not forget."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once where the patience had run out."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True
