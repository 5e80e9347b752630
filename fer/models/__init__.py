"""Networks: one family a file, each a registered ``EmotionClassifier``."""

from fer.models.base import EmotionClassifier
from fer.models.cnn import CNN
from fer.models.mlp import MLP
from fer.models.registration import MODELS, create, register

__all__ = ["CNN", "MLP", "MODELS", "EmotionClassifier", "create", "register"]
