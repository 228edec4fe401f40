"""`headwater apply`: validate, write the registry, create topics, publish the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headwater.cli import Context

if TYPE_CHECKING:
    from headwater.online.plan_store import PublishResult
    from headwater.plans.plan import Plan

EPILOG = """\b
Examples:
  headwater apply
  headwater -C shop/features apply
"""


@click.command(epilog=EPILOG)
@click.pass_obj
def command(context: Context) -> None:
    """Validate the definitions, write the registry, create missing topics, publish the plan to Redis.

    \b
    1. All definitions are compiled; if any is wrong, all errors are listed and nothing is written.
    2. Redis and Kafka have to answer, or nothing is written (exit code 3).
    3. The registry is written, missing topics are created (TOPIC and TOPIC.dead-letters).
    4. The plan is published, even where nothing changed; workers and servers take it up by themselves.
    """
    repository = context.repository()
    from headwater.cli.plan import show
    from headwater.definitions.registry import load_settled, registry_plan, write_registry
    from headwater.plans.diff import differences
    from headwater.plans.publishing import publish_plan, reach_servers

    contents, plan = load_settled(repository)  # 1
    servers = reach_servers(repository, plan)  # 2
    show(repository.project, differences(registry_plan(repository), plan))
    write_registry(repository, contents)  # 3
    result = publish_plan(servers, plan)  # 3, 4
    if servers.missing:
        click.echo(f"Created {', '.join(servers.missing)} in Kafka.")
    _report(plan, result)


def _report(plan: Plan, result: PublishResult) -> None:
    views = f"{len(plan.views)} view{'' if len(plan.views) == 1 else 's'}"
    click.echo(f"Published the plan of project '{plan.project}': {views}.")
    streams = {view.name for view in plan.stream_views()}
    for verb, names in (
        ("backfill", [name for name in result.filling if name in streams]),
        ("materialize", [name for name in result.filling if name not in streams]),
    ):
        if names:
            click.echo(
                click.style(f"To be filled before they are served: headwater {verb} {' '.join(names)}", fg="yellow")
            )
