"""The exception tree; every error is a sentence that says what was required, what came and what to do now.

AfterfitError               exit code 1
├── SettingsError           2   the settings file or an option is wrong
├── DataError               2   a table cannot be used as it is
│   ├── SourceError         2   a file, bucket, table or folder is not there or cannot be read or written
│   └── SchemaError         2   the columns are not those that the contract asks for
├── TrainingError           2   this table cannot train this model
├── BundleError             1   a model version does not load, or is not what was registered
├── LogError                1   the prediction log cannot be written or read
├── AlarmError              1   an alarm could not be delivered
│   └── UnsureAlarmError    1   nobody knows whether an alarm was delivered
└── StoreError              1   the MLflow store refused or could not be reached
    ├── BusyError           1   another process is at it
    ├── DamagedRecordError  1   what was written into the store was changed or removed by hand
    └── UnknownVersionError 2   no such model, version or alias

A message often repeats what a library said, an address or a setting. It is cleaned of secrets when it is read as text.
"""

from afterfit.texts.redaction import redact


class AfterfitError(Exception):
    """Anything that Afterfit itself reports. `exit_code` is what a command ends with."""

    exit_code = 1

    def __str__(self) -> str:
        """The sentence without secrets."""
        return redact(super().__str__())

    def __repr__(self) -> str:
        """As above, with its kind."""
        return f"{type(self).__name__}({str(self)!r})"


class SettingsError(AfterfitError):
    """A settings file or an option is wrong; the message names file and key."""

    exit_code = 2


class DataError(AfterfitError):
    """A table cannot be used as it is; the message names the column or the rows."""

    exit_code = 2


class SourceError(DataError):
    """A file, folder, bucket or database is not there, or cannot be read or written."""


class SchemaError(DataError):
    """The columns differ from those that the contract asks for; the message lists them column by column."""


class TrainingError(AfterfitError):
    """This table cannot train this model; the message says which rows or classes are missing."""

    exit_code = 2


class BundleError(AfterfitError):
    """A model version does not load, or is not the one that was registered."""


class LogError(AfterfitError):
    """The prediction log cannot be written or read; the message names the file and what the system said."""


class AlarmError(AfterfitError):
    """An alarm could not be delivered."""


class UnsureAlarmError(AlarmError):
    """An alarm went out and no answer came: it may have arrived, and is not sent again."""


class StoreError(AfterfitError):
    """The MLflow store refused a call or could not be reached."""


class BusyError(StoreError):
    """Another process holds what this one waits for."""


class DamagedRecordError(StoreError):
    """What Afterfit has written into the store was changed or removed by hand, and cannot be read as it was written."""


class UnknownVersionError(StoreError):
    """The registry has no such model, version or alias."""

    exit_code = 2
