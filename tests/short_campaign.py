"""``fer.best`` whose networks get so many epochs at most: ``python -m short_campaign EPOCHS [OPTION ...]``."""

import sys

from fer.best import main
from fer.campaign import plan, recipes

if __name__ == "__main__":
    recipes.MOST_ON_CPU = plan.MOST_SMALL = int(sys.argv.pop(1))
    sys.exit(main())
