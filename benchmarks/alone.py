"""What the object store can do alone: parts to signed addresses, and one GET, with no server of ours between."""

from __future__ import annotations

from typing import Final

from buckets import BUCKET, Bucket
from load import Body, Connection, Sink, Source, together
from spray import Fleet, place, put_at

_PART_BYTES: Final = 8 * 2**20
_AT_ONCE: Final = 3


def store_alone(bucket: Bucket) -> Fleet:
    """Three parts of 8 MiB at once for each blob, as our servers send them."""
    client = bucket.client()

    def push(_fleet: Fleet, source: Source, body: Body) -> None:
        where = {"Bucket": BUCKET, "Key": _key(body.digest)}
        upload = client.create_multipart_upload(**where)["UploadId"]
        starts = range(0, source.size, _PART_BYTES)
        etags = dict[int, str]()

        def send(lane: int) -> None:
            for number in range(lane, len(starts), _AT_ONCE):
                told = {**where, "UploadId": upload, "PartNumber": number + 1}
                url = client.generate_presigned_url("upload_part", told)
                size = min(_PART_BYTES, source.size - starts[number])
                etags[number + 1] = put_at(url, source, body, starts[number], size)

        together(_AT_ONCE, send)
        parts = [{"PartNumber": number, "ETag": etags[number]} for number in sorted(etags)]
        client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})

    def pull(_fleet: Fleet, digest: str, sink: Sink | None = None) -> int:
        address, target = place(client.generate_presigned_url("get_object", {"Bucket": BUCKET, "Key": _key(digest)}))
        with Connection(address) as connection:
            return connection.download(target, sink=sink)

    return Fleet("the store alone", (bucket.process,), push, pull)


def _key(digest: str) -> str:
    return f"alone/{digest.removeprefix('sha256:')}"
