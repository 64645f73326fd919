"""Liveness and readiness, for supervisors and load balancers. Neither asks Prefect: callers cannot wear it out."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel

from .problems import RETRY_AFTER, documented
from .service import TheService

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """Prefect answers, the webhooks are known, and what is done beside answering is being done."""

    status: Literal["ready"] = "ready"
    webhooks: int


@router.get("/healthz")
async def alive() -> Alive:
    """Whether the process answers at all, also while Prefect is away."""
    return Alive()


@router.get("/readyz", responses=documented(503))
async def ready(service: TheService) -> Ready:
    """Whether Prefect answered lately, the webhooks are known and no work of the gateway fails; 503 otherwise."""
    if service.failing:
        said = f"what the gateway does beside answering fails: {', '.join(sorted(service.failing))}; its log says how"
        raise HTTPException(503, said, {"Retry-After": str(RETRY_AFTER)})
    if not service.doors.ready:
        raise HTTPException(503, "Prefect does not answer", {"Retry-After": str(RETRY_AFTER)})
    return Ready(webhooks=len(service.doors))
