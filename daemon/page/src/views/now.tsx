// What is being painted: how far, how it looks, how long it still takes.

import type { Job } from "../device/devices";
import { queueOf } from "../device/devices";
import { useApp, useTick } from "./context";

/** What a job is called: its prompt, else its id. */
export const titleOf = (job: Job): string => String(job.request?.prompt || job.id);

export function Now() {
    const app = useApp();
    const { text, device } = app;
    const job = device && queueOf(device).find((one) => one.state === "running");
    useTick(job ? 1000 : undefined);
    return (
        <section class="card now" aria-labelledby="now-title">
            <h2 id="now-title">{text.now.title}</h2>
            {device?.paused && <p class="note">{text.now.paused}</p>}
            {job ? <Running job={job} /> : <Idle />}
        </section>
    );
}

function Idle() {
    const { text, device, devices, link } = useApp();
    const missing = link.is === "up" && !device;
    return (
        <div class="idle">
            <p>{missing ? text.devices.none : text.now.idle}</p>
            <p class="muted">{missing ? text.devices.noneMore(devices.base) : text.now.idleMore}</p>
        </div>
    );
}

function Running({ job }: { job: Job }) {
    const app = useApp();
    const { text } = app;
    const { progress } = job;
    const percent = Math.round((progress?.progress ?? 0) * 100);
    const since = (Date.now() - (job.progressAt ?? 0)) / 1000;
    const left = progress?.eta_relative == null ? undefined : Math.max(1, progress.eta_relative - since);
    const latest = app.pictures(job).at(-1)?.url;
    const shown = job.previewUrl ?? latest;
    const words = [
        progress && text.now.stages[progress.stage],
        progress?.stage === "unet" && text.now.step(progress.step, progress.steps),
        progress && progress.images > 1 && text.now.image(progress.image + 1, progress.images),
    ].filter(Boolean);
    return (
        <>
            <p class="prompt">{titleOf(job)}</p>
            {shown && <img class={job.previewUrl ? "preview" : "preview sharp"} src={shown} alt={text.now.preview} />}
            <div
                class="bar"
                role="progressbar"
                aria-label={text.now.progress}
                aria-valuemin={0}
                aria-valuemax={100}
                aria-valuenow={percent}
            >
                <div style={{ width: `${percent}%` }} />
            </div>
            <p class="figures">
                <span>{words.join(" · ") || text.queue.running}</span>
                <span>{left !== undefined && text.now.left(text.seconds(left))}</span>
            </p>
            <p class="actions">
                <button
                    type="button"
                    aria-label={text.queue.cancelJob(titleOf(job))}
                    onClick={() => app.cancel(job.device, job.id)}
                >
                    {text.cancel}
                </button>
            </p>
        </>
    );
}
