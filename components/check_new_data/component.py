"""check-new-data: whether the problems have changed since the newest registered version."""

from kfp import dsl

from stepcoder import images


@dsl.component(base_image=images.TOOLS, install_kfp_package=False)
def check_new_data(problems: str, verification: dict, model_name: str) -> bool:
    """Tells whether there is anything to retrain for; the whole training of the retraining pipeline hangs on it.

    New is what differs in content from the data of the last registration, promoted or not: the records, or a file that
    the verification settings name. Never cached.

    Args:
        problems: File of problem records, a path or an s3:// address.
        verification: Settings of verify-dataset.
        model_name: Name in the MLflow model registry.

    Returns:
        Output: Whether there is new data, or no version yet.
    """
    from stepcoder.new_data import NewDataConfig, check
    from stepcoder.platform.config import parse
    from stepcoder.platform.entry import running
    from stepcoder.preflight import check_settings, companions_of

    with running("check-new-data"):
        companions = companions_of(check_settings({"verification": verification})["verification"])
        inputs = {"problems": problems, "companions": companions, "model_name": model_name}
        found = check(parse(NewDataConfig, {}, where="inputs", **inputs))
    return found.new
