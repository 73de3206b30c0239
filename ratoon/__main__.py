import sys

from ratoon.cli import main

sys.exit(main())
