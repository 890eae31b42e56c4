"""Requests of one run spread over several processes: children that speak to the service, and the run's own.

The run stays where it is: input, limits, budget, retries, results and signals are the parent's. A child gets one
attempt after another over a socket and tells what becomes of each. See ADR 0025.
"""

import os
import sys
from functools import partial
from typing import Any, cast

import msgspec

from batchchat.admission import Admission
from batchchat.descriptors import fit_concurrency
from batchchat.errors import ConfigError
from batchchat.job_config import JobConfig
from batchchat.processes.messages import Opening
from batchchat.processes.notices import Notices
from batchchat.processes.remote_provider import RemoteProvider
from batchchat.processes.shared_nonce import NonceDesk, own_nonce
from batchchat.providers.base import Provider, ProviderContext

__all__ = ["spread_over_processes"]


def spread_over_processes(
    job: JobConfig, provider_class: type[Provider], config: Any, context: ProviderContext, admission: Admission
) -> Provider:
    """The provider, not entered yet, with its requests spread over the job's number of processes.

    Raises:
        ConfigError: That is not possible here.
    """
    if sys.platform == "win32":
        raise ConfigError("processes: there is only one on Windows; leave --processes out")
    if provider_class.kind == "local":
        raise ConfigError("processes: provider local runs its model in a process of its own; leave --processes out")
    count = min(job.processes, context.concurrency)
    if count == 1:
        return provider_class(config, context)
    share = fit_concurrency(context.concurrency)
    desk, notices = NonceDesk(), Notices(context.notice)
    own = msgspec.structs.replace(context, notice=notices.of(0), shared_nonce=own_nonce(desk), concurrency=share)
    provider = provider_class(config, own)

    spread = RemoteProvider(
        provider,
        partial(_opening, job, provider, config, own, admission),
        admission=admission,
        desk=desk,
        notices=notices,
        children=count - 1,
        concurrency=share,
    )
    return cast("Provider", spread)


def _opening(
    job: JobConfig, provider: Provider, config: Any, context: ProviderContext, admission: Admission, number: int
) -> Opening:
    """What child ``number`` is told first; made when it starts, as keys are known only then."""
    keys = getattr(provider, "asked_keys", None)
    return Opening(
        number=number,
        kind=provider.kind,
        settings=msgspec.to_builtins(config),
        environ=dict(context.environ),
        keys=None if keys is None else keys(),
        connect_s=context.connect_s,
        idle_s=context.idle_s,
        attempt_s=context.attempt_s,
        max_response_bytes=context.max_response_bytes,
        proxy=context.proxy,
        ca_file=None if job.ca_file is None else os.path.abspath(job.ca_file),
        nonce_folder=context.nonce_folder,
        concurrency=context.concurrency,
        ask_before_sending=job.rate_scope == "host",
        tell_at_once=admission.watch is not None,
        closed=admission.closed,
    )
