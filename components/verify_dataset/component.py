"""verify-dataset: keeps the records that can be trusted, and splits them."""

from kfp import dsl

from stepcoder import images


@dsl.component(base_image=images.TOOLS, install_kfp_package=False)
def verify_dataset(
    problems: str,
    problem_format: str,
    problems_digest: str,
    settings: dict,
    dataset: dsl.Output[dsl.Dataset],
):
    """Checks each record, its reference solution against its tests above all, and splits the accepted ones.

    Args:
        problems: File of problem records, a path or an s3:// address.
        problem_format: Format of the records (apps_plus, leetcode, humaneval or mbpp).
        problems_digest: Digest of the records from resolve-inputs; a changed file misses the cache by it.
        settings: Settings of the step; the table below lists them.
        dataset: Folder with train.jsonl, validation.jsonl, test.jsonl, rejected.jsonl and card.json.
    """
    from stepcoder.platform.config import parse
    from stepcoder.platform.entry import running
    from stepcoder.verification import VerifyConfig, verify

    with running("verify-dataset"):
        inputs = {"problems": problems, "format": problem_format, "out": dataset.path}
        card = verify(parse(VerifyConfig, settings, where="verification", **inputs))
        dataset.metadata.update(problems_digest=problems_digest, counts=card.counts)
