"""Objects of S3 and of services that speak its protocol, by the client of s3fs."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from batchchat.storage.extras import import_filesystem
from batchchat.storage.faults import NO_BUCKET, ConflictError, StorageError
from batchchat.storage.s3_faults import fault_of
from batchchat.storage.store import ABSENT, ANY, Stat
from batchchat.storage.urls import parse

if TYPE_CHECKING:
    from batchchat.storage.tries import Tries

__all__ = ["MARK_KEY", "S3Store"]

_T = TypeVar("_T")
MARK_KEY = "batchchat-put"
_PIECE_BYTES = 256 << 10
# Files beyond this go up in parts of this size, or of more where they would be too many.
PART_BYTES = 16 << 20
_MOST_PARTS = 9000
_CONNECT_S, _SILENCE_S = 10, 60
# A request that stands still in a way that no time limit of the client's sees ends all the same.
_REQUEST_S = 900.0


class S3Store:
    """See ``Store``. Address, region and keys come from the environment and the files of the AWS tools."""

    def __init__(self) -> None:
        settings: dict[str, Any] = {
            "connect_timeout": _CONNECT_S,
            "read_timeout": _SILENCE_S,
            "retries": {"total_max_attempts": 1, "mode": "standard"},  # ours count and can be ended
        }
        if os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
            settings["s3"] = {"addressing_style": "path"}  # few other services have a host name for each bucket
        self._fs = import_filesystem("s3")(
            config_kwargs=settings, skip_instance_cache=True, use_listings_cache=False, asynchronous=False
        )

    def stat(self, place: str) -> Stat:
        """See ``Store``."""
        return self._do(place, lambda client: _stat(client, place))

    def read(self, place: str, start: int, stop: int, etag: str | None, into: bytearray) -> str:
        """See ``Store``."""
        return self._do(place, lambda client: _read(client, place, start, stop, etag, into))

    def put(self, place: str, data: bytes, expect: str, mark: str) -> str:
        """See ``Store``."""
        return self._do(place, lambda client: _put(client, place, data, expect, mark))

    def put_file(self, place: str, local_path: str, expect: str, mark: str, tries: "Tries") -> str:
        """See ``Store``."""
        size = os.path.getsize(local_path)
        if size <= PART_BYTES:
            with open(local_path, "rb") as file:
                data = file.read()
            return tries.call(lambda: self._put_whole(place, data, expect, mark))
        bucket, key = _address(place)
        made = tries.call(
            lambda: self._do(
                place,
                lambda client: client.create_multipart_upload(Bucket=bucket, Key=key, Metadata={MARK_KEY: mark}),
            )
        )
        target = {"Bucket": bucket, "Key": key, "UploadId": made["UploadId"]}
        try:
            parts = self._put_parts(place, local_path, size, target, tries)
            return tries.call(lambda: self._complete(place, target, parts, expect))
        except BaseException:
            self._abandon(place, target)
            raise

    def remove(self, place: str) -> None:
        """See ``Store``."""
        bucket, key = _address(place)
        self._do(place, lambda client: client.delete_object(Bucket=bucket, Key=key))

    def _put_whole(self, place: str, data: bytes, expect: str, mark: str) -> str:
        self._check_expected(place, expect)
        return self.put(place, data, expect, mark)

    def _put_parts(
        self, place: str, local_path: str, size: int, target: dict[str, str], tries: "Tries"
    ) -> list[dict[str, Any]]:
        part_bytes = max(PART_BYTES, -(-size // _MOST_PARTS))
        parts: list[dict[str, Any]] = []
        with open(local_path, "rb") as file:
            while data := file.read(part_bytes):
                parts.append(self._put_part(place, target, len(parts) + 1, data, tries))
        return parts

    def _put_part(self, place: str, target: dict[str, str], number: int, data: bytes, tries: "Tries") -> dict[str, Any]:
        answer = tries.call(
            lambda: self._do(place, lambda client: client.upload_part(**target, PartNumber=number, Body=data))
        )
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _complete(self, place: str, target: dict[str, str], parts: list[dict[str, Any]], expect: str) -> str:
        async def complete(client: Any) -> str:
            answer = await client.complete_multipart_upload(
                **target, MultipartUpload={"Parts": parts}, **_condition(expect)
            )
            return str(answer["ETag"])

        self._check_expected(place, expect)
        return self._do(place, complete)

    def _check_expected(self, place: str, expect: str) -> None:
        """For services that do not heed the condition of a request: what happens between both is a matter of luck."""
        if expect == ANY:
            return
        try:
            found = self.stat(place).etag
        except StorageError as error:
            if error.kind != "missing":
                raise
            found = ABSENT
        if found != expect:
            raise ConflictError(place)

    def _abandon(self, place: str, target: dict[str, str]) -> None:
        """Parts that stay cost money; those that cannot be taken away now are for the bucket's own rules."""
        try:
            self._do(place, lambda client: client.abort_multipart_upload(**target))
        except StorageError:
            pass

    def _do(self, place: str, request: Callable[[Any], Awaitable[_T]]) -> _T:
        async def do() -> _T:
            return await request(await self._fs.set_session())

        future = asyncio.run_coroutine_threadsafe(do(), self._fs.loop)
        try:
            return future.result(_REQUEST_S)
        except StorageError:
            raise
        except Exception as error:
            raise fault_of(place, error) from error
        finally:
            future.cancel()


def _address(place: str) -> tuple[str, str]:
    found = parse(place)
    return found.bucket, found.key


def _condition(expect: str) -> dict[str, str]:
    if expect == ANY:
        return {}
    return {"IfNoneMatch": "*"} if expect == ABSENT else {"IfMatch": expect}


async def _stat(client: Any, place: str) -> Stat:
    bucket, key = _address(place)
    try:
        found = await client.head_object(Bucket=bucket, Key=key)
    except Exception as error:
        fault = fault_of(place, error)
        if fault.kind == "missing":
            await _check_bucket(
                client, place, bucket
            )  # an answer without a body does not tell which of both is missing
        raise fault from error
    return Stat(
        size_bytes=int(found["ContentLength"]),
        etag=str(found["ETag"]),
        modified_at=found.get("LastModified"),
        now=_date_of(found),
        mark=found.get("Metadata", {}).get(MARK_KEY),
    )


async def _check_bucket(client: Any, place: str, bucket: str) -> None:
    try:
        await client.head_bucket(Bucket=bucket)
    except Exception as error:
        fault = fault_of(place, error)
        if fault.kind == "missing":
            raise StorageError(place, f"{NO_BUCKET} {bucket}", "missing") from error


def _date_of(answer: dict[str, Any]) -> Any:
    from email.utils import parsedate_to_datetime

    told = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return parsedate_to_datetime(told) if told else None
    except ValueError:
        return None


async def _read(client: Any, place: str, start: int, stop: int, etag: str | None, into: bytearray) -> str:
    bucket, key = _address(place)
    condition = {} if etag is None else {"IfMatch": etag}
    answer = await client.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}", **condition)
    found = str(answer["ETag"])
    if etag is not None and found != etag:
        raise ConflictError(place)
    if start and not str(answer.get("ContentRange", "")).startswith(f"bytes {start}-"):
        raise StorageError(place, "the store does not send parts of an object, which is needed here", "unsupported")
    wanted, came = int(answer["ContentLength"]), 0
    async with _closing(answer["Body"]) as body:
        async for piece in body.iter_chunks(_PIECE_BYTES):
            into += piece
            came += len(piece)
            if came >= stop - start:
                break
    if came < min(wanted, stop - start):
        raise ConnectionResetError("the answer ended too early")
    return found


@asynccontextmanager
async def _closing(body: Any) -> AsyncIterator[Any]:
    try:
        yield body
    finally:
        body.close()


async def _put(client: Any, place: str, data: bytes, expect: str, mark: str) -> str:
    bucket, key = _address(place)
    answer = await client.put_object(Bucket=bucket, Key=key, Body=data, Metadata={MARK_KEY: mark}, **_condition(expect))
    return str(answer["ETag"])
