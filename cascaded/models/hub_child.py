"""Download one file from the model hub: `python hub_child.py REPOSITORY PATH REVISION FOLDER`.

A process of its own, because the hub's client waits long and retries often when it is offline:
here it can be watched and stopped. Says what went wrong on stderr and exits with 1.
"""

import os
import sys

CONNECT_TIMEOUT_S = 5.0


def main(repository: str, path: str, revision: str, folder: str) -> int:
    """The exit code."""
    # One plain HTTP download with one partial file: that is what can be resumed and watched.
    os.environ.update(
        HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1"
    )
    import huggingface_hub

    try:
        # Asked once, without the client's own retries, so that "offline" is known in seconds.
        huggingface_hub.get_hf_file_metadata(
            huggingface_hub.hf_hub_url(repository, path, revision=revision),
            timeout=CONNECT_TIMEOUT_S,
        )
        huggingface_hub.hf_hub_download(
            repository,
            path,
            revision=revision,
            local_dir=folder,
            etag_timeout=CONNECT_TIMEOUT_S,
        )
    except Exception as fault:  # whatever the client raises is a reason to try the next source
        sys.stderr.write(f"{type(fault).__name__}: {fault}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
