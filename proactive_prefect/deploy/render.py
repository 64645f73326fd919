"""The rules as a `prefect.yaml`: `prefect deploy --all` with it makes the same deployments as `apply`.

What the file cannot say: labels. A deployment that `prefect deploy` has made is told by its tags and its snapshot, and
the next `apply` adopts it. There is no path of a machine in it: without a pull step, `prefect deploy` lets runs work
in the folder that it is called in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from ..prefect_api.deployments import SLUG
from .compile import DeploymentSpec

_HEAD = """\
# Written by `proactive render` from the rules file. Edit the rules, not this.
#   prefect deploy --all     deploys it, as `proactive apply` does
"""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True  # what two deployments share is written twice: nobody wants anchors to read


def render(specs: Sequence[DeploymentSpec]) -> str:
    """The text of a prefect.yaml with one deployment for each of `specs`, in their order."""
    body = {"deployments": [_deployment(spec) for spec in specs]}
    return _HEAD + yaml.dump(body, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def _deployment(spec: DeploymentSpec) -> dict[str, Any]:
    limit = None
    if spec.concurrency_limit is not None and spec.concurrency_options is not None:
        limit = {"limit": spec.concurrency_limit, **spec.concurrency_options}
    schedules = []
    if spec.schedule is not None:
        schedules.append({"slug": SLUG, **spec.schedule.schedule, "active": spec.schedule.active})
    return {
        "name": spec.name,
        "version": spec.version,
        "description": spec.description,
        "tags": spec.tags,
        "entrypoint": spec.entrypoint,
        "parameters": spec.parameters,
        "schedules": schedules,
        "concurrency_limit": limit,
        "enforce_parameter_schema": spec.enforce_parameter_schema,
        "work_pool": {
            "name": spec.work_pool_name,
            "work_queue_name": spec.work_queue_name,
            "job_variables": spec.job_variables,
        },
    }
