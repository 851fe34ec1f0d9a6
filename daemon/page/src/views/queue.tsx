// The jobs that wait, and how the last ones ended.

import type { Job } from "../device/devices";
import { isOver, queueOf } from "../device/devices";
import { useApp } from "./context";
import { titleOf } from "./now";

export function Queue() {
    const app = useApp();
    const { text, device } = app;
    const waiting = device ? queueOf(device).filter((job) => job.state !== "running") : [];
    // What went well is to be seen among the pictures.
    const quiet = (job: Job) => job.state === "done" && job.warnings.length === 0;
    const ended = device ? [...device.jobs.values()].filter((job) => isOver(job) && !quiet(job)).reverse() : [];
    return (
        <section class="card queue" aria-labelledby="queue-title">
            <div class="top">
                <h2 id="queue-title">{text.queue.title}</h2>
                {device && (
                    <span class="actions">
                        {waiting.length > 1 && (
                            <button type="button" onClick={() => app.cancel(device.name, undefined)}>
                                {text.queue.cancelAll}
                            </button>
                        )}
                        <button
                            type="button"
                            onClick={() => app.command(device.name, device.paused ? "resume" : "pause")}
                        >
                            {device.paused ? text.queue.resume : text.queue.pause}
                        </button>
                    </span>
                )}
            </div>
            {waiting.length === 0 && <p class="muted">{text.queue.empty}</p>}
            <ol class="jobs">
                {waiting.map((job, index) => (
                    <li key={job.id}>
                        <span class="what">{titleOf(job)}</span>
                        <span class="muted">
                            {job.state === "sent" ? text.queue.sent : text.queue.position(job.position ?? 0)}
                        </span>
                        {index > 0 && job.state === "queued" && (
                            <button
                                type="button"
                                class="plain"
                                title={text.queue.moveUp}
                                aria-label={text.queue.moveJobUp(titleOf(job))}
                                onClick={() => app.move(job.device, job.id, index - 1)}
                            >
                                <svg viewBox="0 0 24 24" aria-hidden="true">
                                    <path d="M6 14l6-6 6 6" />
                                </svg>
                            </button>
                        )}
                        <button
                            type="button"
                            class="plain"
                            title={text.cancel}
                            aria-label={text.queue.cancelJob(titleOf(job))}
                            onClick={() => app.cancel(job.device, job.id)}
                        >
                            <svg viewBox="0 0 24 24" aria-hidden="true">
                                <path d="M6 6l12 12M18 6L6 18" />
                            </svg>
                        </button>
                    </li>
                ))}
            </ol>
            {device && ended.length > 0 && (
                <>
                    <div class="top">
                        <h3>{text.queue.ended}</h3>
                        <button type="button" onClick={() => app.forget(device)}>
                            {text.queue.hide}
                        </button>
                    </div>
                    <ul class="jobs" aria-live="polite">
                        {ended.map((job) => (
                            <li key={job.id} class={job.state}>
                                <span class="what">{titleOf(job)}</span>
                                <span class="state">{text.queue.states[job.state]}</span>
                                {job.error && job.state !== "cancelled" && (
                                    <span class="more">{job.error.message}</span>
                                )}
                                {job.warnings.map((warning) => (
                                    <span class="more" key={warning}>
                                        {warning}
                                    </span>
                                ))}
                                {job.state === "unknown" && job.own && (
                                    <button
                                        type="button"
                                        title={text.queue.askAgainMore}
                                        onClick={() => app.askAgain(job.device, job.id)}
                                    >
                                        {text.queue.askAgain}
                                    </button>
                                )}
                            </li>
                        ))}
                    </ul>
                </>
            )}
        </section>
    );
}
