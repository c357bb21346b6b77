"""What was settled for a blob before its first byte is written."""

from dataclasses import dataclass
from typing import Any

from models.copy_logs import DispositionStatus


@dataclass(slots=True)
class Plan:
    """What was settled for one blob.

    Attributes:
        path: its final path, container first.
        status: what becomes of a blob that has this path already; Cancelled where it is over without having
            been told of.
        upload: the store's handle of a blob that is being written part by part; empty before.
        over: whether the blob is done, well or badly.
        is_sure: whether the store itself has said what `status` stands on; else it is a name that this copy
            settled for another blob, which may fail. Not recorded: a run that goes on is sure of nothing.
    """

    path: str
    status: DispositionStatus
    upload: str = ""
    over: bool = False
    is_sure: bool = False

    @classmethod
    def of(cls, entry: dict[str, Any]) -> "Plan":
        """Read one from the record."""
        return cls(entry["path"], DispositionStatus(entry["status"]), entry["upload"], entry["over"])

    def entry(self) -> dict[str, Any]:
        """Make its entry in the record."""
        return {"path": self.path, "status": self.status, "upload": self.upload, "over": self.over}

    def end(self, *, is_in_store: bool) -> None:
        """Let a blob be over that no run goes on with; its `upload` is kept, to be dropped."""
        self.over = True
        if not is_in_store:
            self.status = DispositionStatus.CANCELLED

    @property
    def overwrites(self) -> bool:
        """Whether a blob of this name is to go."""
        return self.status is DispositionStatus.OVERWRITTEN
