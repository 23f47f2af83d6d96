"""What schemathesis cannot read from the document: TestInteropSchemathesis loads it as hooks."""

import datetime

import schemathesis

QUICK = "sim:tokens=2,ttft=0s,gap=0s"


@schemathesis.hook
def map_case(context, case):
    """Puts into valid requests what depends on the running program."""
    if case.meta is None:
        return case
    ahead(case.body)
    if not case.meta.generation.mode.is_positive:
        return case
    # A model that is served, and at once: else nearly all would end at model_not_found.
    for body in (case.body, case.body.get("body") if isinstance(case.body, dict) else None):
        if isinstance(body, dict) and isinstance(body.get("model"), str):
            body["model"] = QUICK
            # That model's own limit.
            if isinstance(body.get("dimensions"), (int, float)):
                body["dimensions"] = min(body["dimensions"], 4096)
    query, headers = case.query or {}, case.headers or {}
    if isinstance(query.get("partition"), int):
        query["partition"] %= PARTITIONS
    if "wait" in query:
        query["wait"] = "1s"  # 60 s at most, which the pattern cannot say
    for name in ("after", "cursor"):
        query.pop(name, None)  # only an answer can give one
    headers.pop("Last-Event-ID", None)
    return case


PARTITIONS = 4


def ahead(body):
    """A deadline that has passed is 504, by the table of codes: that is no defect."""
    if isinstance(body, dict) and isinstance(body.get("deadline"), str):
        try:
            datetime.datetime.fromisoformat(body["deadline"])
        except ValueError:
            return
        soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
        body["deadline"] = soon.isoformat(timespec="milliseconds").replace("+00:00", "Z")
