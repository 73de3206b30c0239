import os
import sys

code = None
if "RATOON_WARM" in os.environ and sys.argv[1:2] == ["prepare"] and len(sys.argv) > 2:
    # Before anything else is imported: that is what it saves.
    from ratoon.warm import hand_over

    code = hand_over(sys.argv[1:])
if code is None:
    from ratoon.cli import main

    code = main()
sys.exit(code)
