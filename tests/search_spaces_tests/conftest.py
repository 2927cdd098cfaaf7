"""The helpers must be a module that tests can find."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
