"""prefect.yaml of a project whose one flow is `hello.hello`: a test writes hello.py beside it."""

DEPLOYMENTS = """
pull:
  - prefect.deployments.steps.set_working_directory:
      directory: "{{ $RATOON_ROOT }}"
deployments:
  - name: default
    entrypoint: hello.hello
    work_pool: {name: cpu}
"""
