"""From a claimed run to its job: what the server knows of it, read once, and the pool's template filled in."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import Flow, FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound

from ..errors import InputError
from .job import ProactiveJobConfiguration
from .seam import base_environment
from .wake import Together

if TYPE_CHECKING:
    from .worker import ProactiveWorker

_DEPLOYMENT_AGE = 1.0  # seconds for which a deployment is taken for known, by runs made before it was read
_STORAGE_AGE = 60.0  # seconds for which the server's default place for results is taken for known


class Jobs:
    """Reads deployments and flows, and makes each run's job configuration."""

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._read = Together(self._read_deployment)
        self._deployments: dict[UUID, tuple[float, DeploymentResponse]] = {}
        self._flows: dict[UUID, Flow] = {}
        self._storage: dict[str, Any] = {}
        self._storage_at = -_STORAGE_AGE

    async def deployment(self, flow_run: FlowRun) -> DeploymentResponse | None:
        """The run's deployment as it is, or was at a moment since the run was made, a second ago at most."""
        deployment_id, made = flow_run.deployment_id, flow_run.created
        if deployment_id is None:
            return None
        asked, known = time.time(), self._deployments.get(deployment_id)
        if known is not None and made is not None and known[0] > max(made.timestamp(), asked - _DEPLOYMENT_AGE):
            return known[1]
        deployment: DeploymentResponse | None = await self._read(deployment_id)
        self._deployments = {key: each for key, each in self._deployments.items() if each[0] > asked - _DEPLOYMENT_AGE}
        if deployment is not None:
            self._deployments[deployment_id] = (asked, deployment)
        return deployment

    async def configure(
        self, worker: ProactiveWorker, flow_run: FlowRun, deployment: DeploymentResponse
    ) -> ProactiveJobConfiguration:
        """The run's job: the pool's template, the deployment's variables over it, the run's own over those.

        Raises InputError for a variable that has no place in this type of pool.
        """
        own = dict(flow_run.job_variables or {})
        values = dict(deployment.job_variables or {})
        if isinstance(values.get("env"), dict):
            values["env"] = {**values["env"], **own.pop("env", {})}
        values.update(own)
        if values.get("command"):
            raise InputError("a pool of type proactive runs flows in its own processes: `command` has no place in it")
        configuration: ProactiveJobConfiguration = await ProactiveJobConfiguration.from_template_and_values(
            worker.work_pool.base_job_template, values, client=self._client
        )
        configuration.prepare_for_flow_run(
            flow_run=flow_run,
            deployment=deployment,
            flow=await self._flow(flow_run.flow_id),
            work_pool=worker.work_pool,
            worker_name=worker.name,
            worker_id=worker.backend_id,
        )
        return configuration

    async def known(self, flow_run: FlowRun, deployment: DeploymentResponse) -> dict[str, Any]:
        """What the run's process would ask the server for, and this one knows."""
        if time.monotonic() - self._storage_at > _STORAGE_AGE:
            storage = await self._client.read_server_default_result_storage()
            self._storage, self._storage_at = storage.model_dump(mode="json"), time.monotonic()
        return {
            "deployment": deployment.model_dump(mode="json"),
            "flow": (await self._flow(flow_run.flow_id)).name,
            "storage": self._storage,
        }

    async def _flow(self, flow_id: UUID) -> Flow:
        if flow_id not in self._flows:
            self._flows[flow_id] = await self._client.read_flow(flow_id)
        return self._flows[flow_id]

    async def _read_deployment(self, deployment_id: UUID) -> DeploymentResponse | None:
        try:
            return await self._client.read_deployment(deployment_id)
        except ObjectNotFound:
            return None


async def environment(client: PrefectClient, mark: str) -> dict[str, str]:
    """The environment of all processes of runs, with settings that spare each from asking what this one knows."""
    known = {"PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false"}  # done by this process
    try:
        await client.request("GET", "/csrf-token", params={"client": mark})
    except httpx.HTTPStatusError as answer:
        if answer.response.status_code == 422:  # the server does not use them
            known["PREFECT_CLIENT_CSRF_SUPPORT_ENABLED"] = "false"
    except httpx.HTTPError:
        pass  # away: then each process asks for itself
    return {**os.environ, **base_environment(), **known}
