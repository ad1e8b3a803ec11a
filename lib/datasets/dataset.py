"""What there is to say about a data set, and what one does with it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.datasets import downloads
from lib.datasets.downloads import Source
from lib.datasets.held_out import FORMS, holding_out
from lib.datasets.utterances import DataSettings, Utterances, check_trainable, validated_on_speakers, validated_on_test
from lib.features import Frames


@dataclass(frozen=True, eq=False, kw_only=True)
class DataSet:
    """A set, each in a file of its own that says all about it.

    ``mark`` is what a folder must hold to be taken for the set at all, and ``read(name, split, root)`` loads it from
    there. A set without a validation part has ``validation_speakers``, who are held out from training for it.
    ``groups`` are short names for the labels of several classes. A published set has ``sources``; a synthetic one is
    made: ``make(root, utterances, seed)``.
    """

    name: str
    settings: type[DataSettings]
    splits: tuple[str, ...]
    default_split: str
    mark: str
    read: Callable[[str, str, Path], Utterances]
    licence: str
    citation: str
    validation_speakers: tuple[str, ...] = ()
    groups: Mapping[str, Iterable[int]] = field(default_factory=dict)
    sources: tuple[Source, ...] = ()
    make: Callable[..., None] | None = None

    def prepare(self, root: str | Path) -> None:
        """Make the set in the folder ``root``, or download it there; what a folder holds already is left as it is.

        Raises ``ValueError`` where a synthetic set's folder holds something else or an archive is not what was
        published, ``ConnectionError`` if no server gives the whole archive, ``OSError`` if the disk is too small.
        """
        root = Path(root)
        if self.make is not None:
            self.make(root)
        elif not (root.is_dir() and any(root.iterdir())):
            downloads.fetch(self.name, self.sources, root)

    def load(self, root: str | Path, settings: DataSettings | None = None) -> Utterances:
        """Load the set from the folder that holds its own layout, under the split that the settings name.

        Every set has splits that hold classes out: "without cat, dog" and "held-out cat, dog" (``held_out``).

        Raises ``ValueError`` if the split is unknown or the files do not make a whole set, ``FileNotFoundError`` if the
        folder does not hold the set or a list names recordings that are not there.
        """
        root, settings = Path(root), self.settings() if settings is None else settings
        split = settings.split or self.default_split
        holds_out = split.startswith(FORMS)
        if not holds_out and split not in self.splits:
            raise ValueError(
                f"{self.name!r} has no split called {split!r}: its splits are {', '.join(self.splits)}, and 'without' "
                "or 'held-out' with the names of classes"
            )
        if settings.validation == "speaker" and not self.validation_speakers:
            raise ValueError(f"{self.name!r} has a validation part of its own: leave validation out, or make it 'test'")
        if not (root / self.mark).exists():
            raise FileNotFoundError(
                f"{root} does not hold the set {self.name!r}, there is no {self.mark!r} in it: give the folder that "
                "holds the set's own layout (data/README.md shows it and says how to get the set)"
            )
        utterances = self.read(self.name, self.default_split if holds_out else split, root)
        if settings.validation == "test":
            utterances = validated_on_test(utterances)
        elif self.validation_speakers:
            utterances = validated_on_speakers(utterances, self.validation_speakers)
        check_trainable(utterances)
        return holding_out(utterances, split, self.groups) if holds_out else utterances

    def frames(self, utterances: Any, settings: DataSettings, cache: str | Path, snr: float | None = None) -> Frames:
        """Return what a network is given of the loaded set, computed once in the folder ``cache``.

        With ``snr`` there is noise in the test part's waveforms, so many dB below the speech. Raises ``ValueError`` for
        a damaged recording and for an ``snr`` where there are no waveforms.
        """
        return utterances.frames(settings, Path(cache), snr)
