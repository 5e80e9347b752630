"""Networks: one file for each family, each network a registered ``EmotionClassifier``."""

from fer.config.registry import MODELS
from fer.models.base import EmotionClassifier
from fer.models.cnn import CNN
from fer.models.convnext import ConvNeXt
from fer.models.efficientnet import EfficientNet
from fer.models.factory import create, register
from fer.models.mini_xception import MiniXception
from fer.models.mlp import MLP
from fer.models.preact_resnet import PreActResNet
from fer.models.residual_masking import ResidualMasking
from fer.models.resnet9 import ResNet9
from fer.models.resnet18 import ResNet18
from fer.models.timm import Timm
from fer.models.vgg16 import VGG16
from fer.models.vgg19 import VGG19
from fer.models.vgg_fer import VGGFER

__all__ = [
    "CNN",
    "MLP",
    "MODELS",
    "VGG16",
    "VGG19",
    "VGGFER",
    "ConvNeXt",
    "EfficientNet",
    "EmotionClassifier",
    "MiniXception",
    "PreActResNet",
    "ResNet9",
    "ResNet18",
    "ResidualMasking",
    "Timm",
    "create",
    "register",
]
