"""Writes systemd units for `fleet up`, a shim alone, or the workers of this machine. Pure.

A stop leaves time to drain: TimeoutStopSec is what a worker takes at most, and the first signal
goes to the main process alone, which ends the others itself (KillMode=mixed).
"""

from pathlib import Path
from typing import Final, Literal, NamedTuple

What = Literal["up", "shim", "worker"]

STOP_S: Final = 75
"""Seconds that a process has to end: FLEET_DRAIN_S (30), and what it takes to hand over."""
_SYSTEM: Final = """\
DynamicUser=yes
ProtectHome=read-only
PrivateTmp=yes
ProtectSystem=strict
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
CapabilityBoundingSet=
AmbientCapabilities=
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077
"""
"""What a user's own service manager may not be able to grant. Devices stay: models in a worker's
process may use a GPU; so does memory that is writable and executable: they compile code."""


class Unit(NamedTuple):
    """A unit's file."""

    name: str
    text: str
    commands: tuple[str, ...]
    """What starts it."""


def unit(what: What, *, program: Path, options: str, is_user: bool) -> Unit:
    """The unit for one kind of process.

    `program` is the `fleet` command for `up`, else the Python interpreter beside it; `options` are
    appended to its command line.
    """
    name = {
        "up": "llm-fleet.service",
        "shim": "llm-fleet-shim.service",
        "worker": "llm-fleet-worker@.service",
    }[what]
    description = {
        "up": "llm-fleet: queue in front of language-model backends",
        "shim": "llm-fleet: HTTP shim",
        "worker": "llm-fleet: worker of backend %i",
    }[what]
    command = {
        "up": f"{program} up --data-dir %S/llm-fleet",
        "shim": f"{program} -P -m api_shim",
        "worker": f"{program} -P -m workers",
    }[what]
    text = (
        f"[Unit]\nDescription={description}\nWants=network-online.target\n"
        "After=network-online.target redis-server.service valkey-server.service\n"
        "StartLimitIntervalSec=0\n\n"
        f"[Service]\nType=exec\nExecStart={' '.join(filter(None, (command, options)))}\n"
        f"{_environment(what, is_user=is_user)}"
        "StateDirectory=llm-fleet\nWorkingDirectory=%S/llm-fleet\n"
        f"Restart=on-failure\nRestartSec=2\nKillMode=mixed\nTimeoutStopSec={STOP_S}\n"
        f"NoNewPrivileges=yes\n{'' if is_user else _SYSTEM}\n"
        f"[Install]\nWantedBy={'default.target' if is_user else 'multi-user.target'}\n"
    )
    return Unit(name, text, _commands(name, is_user=is_user))


def _environment(what: What, *, is_user: bool) -> str:
    """Variables, and the file with the others, which may hold keys."""
    file = "%h/.config/llm-fleet/fleet.env" if is_user else "/etc/llm-fleet/fleet.env"
    own = {
        "up": "",
        "shim": 'Environment="FLEET_DATA_DIR=%S/llm-fleet"\n',
        # Its name is new at every start: leases of one run are not those of the next.
        "worker": 'Environment="FLEET_WORKER_BACKEND=%i"\n',
    }[what]
    return f"{own}EnvironmentFile=-{file}\n"


def _commands(name: str, *, is_user: bool) -> tuple[str, ...]:
    systemctl = "systemctl --user" if is_user else "systemctl"
    started = name.replace("@.", "@<backend>.")
    return (f"{systemctl} daemon-reload", f"{systemctl} enable --now {started}")


def folder(*, is_user: bool) -> Path:
    """Where systemd looks for units."""
    if is_user:
        return Path.home() / ".config" / "systemd" / "user"
    return Path("/etc/systemd/system")
