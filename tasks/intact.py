"""Text that rotted on the disk is not trained on: DVC sees a change by a file's size and time, and rot changes neither.

Every file of the editions a refresh reads is compared with the hash in its ledger, before anything is trained: a pass
over what the training will read anyway. A stage that runs again looks at its own files (ratoon/corpus/edition.py).
"""

from pathlib import Path

from ratoon.config import ConfigError
from ratoon.corpus.edition import LEDGER, damaged
from tasks import dvc_locks
from tasks.dvc_process import patiently, reason
from tasks.job import Job
from tasks.live import warn

WAIT_SECONDS = 600.0


def check_intact(job: Job) -> None:
    """Bring damaged files back from DVC's cache. Raises ConfigError where it has no whole copy."""
    for edition in job.editions:
        if (job.layout.root / edition / LEDGER).exists():
            mend(job.layout.root, edition)


def mend(root: Path, edition: str) -> None:
    found = damaged(root / edition)
    if not found:
        return
    for path in found:
        path.unlink(missing_ok=True)
    with dvc_locks.writer(root):
        said = patiently(root, ["checkout", "--force", edition], None, WAIT_SECONDS, as_writer=True)
    left = damaged(root / edition)
    if said.code or left:
        name = (left or found)[0].relative_to(root)
        why = f" ({reason(said)})" if said.code else ""
        raise ConfigError(
            f"{name}: its bytes are not those it was made of, and DVC's cache has no whole copy{why}; `dvc pull "
            f"--force {edition}` brings it from the remote, or remove {edition} and run `ratoon prepare`"
        )
    names = ", ".join(str(path.relative_to(root)) for path in found)
    warn(f"damaged on the disk, brought back from DVC's cache: {names}")
