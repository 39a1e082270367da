"""The API of the AUTOMATIC1111 web UI, `/sdapi/v1`, as its clients speak it: a translation to and from the studio's jobs."""
