// What is known of the devices on the broker: messages come in, the page shows what has become of it.

import type { Publish } from "../mqtt/packets";
import type {
    Answer,
    Fault,
    Health,
    Info,
    JobList,
    JobProgress,
    JobResult,
    JobState,
    Parameters,
    StateName,
} from "./contract";
import { parse } from "./contract";

export interface Job {
    id: string;
    device: string;
    /** `sent`: published by this page, no answer yet; `unknown`: it ended while the page was not connected. */
    state: StateName | "sent" | "unknown";
    position?: number;
    progress?: JobProgress;
    /** When `progress` came, milliseconds since 1970. */
    progressAt?: number;
    previewUrl?: string;
    error?: Fault;
    warnings: string[];
    /** What was asked for, where this page knows. */
    request?: Parameters;
    /** Whether this page has sent it. */
    own: boolean;
    images: Map<number, Picture>;
}

export interface Picture {
    key: string;
    device: string;
    job: string;
    number: number;
    blob: Blob;
    url: string;
    /** Milliseconds since 1970. */
    at: number;
    parameters?: Parameters;
    timings?: Record<string, number | null>;
    request?: Parameters;
}

export interface Device {
    name: string;
    online: boolean;
    info?: Info;
    health?: Health;
    paused: boolean;
    jobs: Map<string, Job>;
}

/** Pictures that are held; the oldest go first. */
const MOST_PICTURES = 200;
/** Jobs of a device that have ended and are still listed. */
const MOST_ENDED = 20;

export const FILTERS = [
    "status",
    "info",
    "health",
    "txt2img",
    "job/+/state",
    "job/+/progress",
    "job/+/preview",
    "job/+/image/+",
    "job/+/result",
    "response/+",
];

export const isOver = (job: Job) => ["done", "failed", "cancelled", "rejected", "unknown"].includes(job.state);

/** The running job, then those that wait, then what was sent and not answered. */
export function queueOf(device: Device): Job[] {
    const rank = (job: Job) => (job.state === "running" ? -1 : job.state === "queued" ? (job.position ?? 1e6) : 1e9);
    return [...device.jobs.values()].filter((job) => !isOver(job)).sort((a, b) => rank(a) - rank(b));
}

export class Devices {
    readonly all = new Map<string, Device>();
    /** The newest first. */
    pictures: Picture[] = [];
    /** Prompts that were seen on their way, for jobs that are not this page's. */
    #seen = new Map<string, Parameters>();

    constructor(
        readonly base: string,
        readonly changed: () => void,
        /** A device is there (again): ask what it does. */
        readonly appeared: (device: string) => void,
    ) {}

    topic(device: string, rest: string): string {
        return `${this.base}/${device}/${rest}`;
    }

    filters(): string[] {
        return FILTERS.map((filter) => this.topic("+", filter));
    }

    device(name: string): Device {
        let device = this.all.get(name);
        if (!device) {
            device = { name, online: false, paused: false, jobs: new Map() };
            this.all.set(name, device);
        }
        return device;
    }

    job(device: string, id: string): Job {
        const jobs = this.device(device).jobs;
        let job = jobs.get(id);
        if (!job) {
            const request = this.#seen.get(`${device}/${id}`);
            job = { id, device, state: "queued", warnings: [], own: false, images: new Map(), request };
            jobs.set(id, job);
        }
        return job;
    }

    /** This page asks for something. */
    sent(device: string, id: string, request: Parameters): void {
        const job = this.job(device, id);
        Object.assign(job, { state: "sent", request, own: true, error: undefined, warnings: [] });
        this.changed();
    }

    take(message: Publish): void {
        if (!message.topic.startsWith(`${this.base}/`)) return;
        const [device, kind, ...rest] = message.topic.slice(this.base.length + 1).split("/");
        if (!device || !kind) return;
        if (kind === "job") this.#takeJob(device, rest, message.payload);
        else if (kind === "response") this.#takeAnswer(device, rest[0] ?? "", message.payload);
        else if (kind === "txt2img") this.#takeRequest(device, message.payload);
        else this.#takeDevice(device, kind, message.payload);
        this.changed();
    }

    #takeDevice(name: string, kind: string, payload: Uint8Array): void {
        if (kind === "status") {
            const device = this.device(name);
            const online = new TextDecoder().decode(payload) === "online";
            if (online && !device.online) this.appeared(name);
            device.online = online;
        } else if (kind === "info") {
            this.device(name).info = parse<Info>(payload);
        } else if (kind === "health") {
            const health = parse<Health>(payload);
            if (health) Object.assign(this.device(name), { health, paused: health.paused });
        }
    }

    #takeRequest(device: string, payload: Uint8Array): void {
        const request = parse<Parameters>(payload);
        const id = request?.id ?? request?.transaction;
        if (!request || typeof request !== "object" || id === undefined) return;
        const known = this.all.get(device)?.jobs.get(String(id));
        if (known) known.request ??= request;
        else this.#seen.set(`${device}/${id}`, request);
        if (this.#seen.size > 300) this.#seen.delete(this.#seen.keys().next().value!);
    }

    #takeAnswer(name: string, command: string, payload: Uint8Array): void {
        const answer = parse<Answer>(payload);
        if (!answer) return;
        if (command === "health" && answer.status === "ok") this.device(name).health = answer.data as unknown as Health;
        if (answer.status === "ok" && answer.data.waiting) this.#reconcile(this.device(name), answer.data as JobList);
    }

    /** What the device lists is what waits and runs; the rest has ended, unheard. */
    #reconcile(device: Device, list: JobList): void {
        device.paused = list.paused;
        const present = new Set(list.waiting);
        const first = list.running === null ? 0 : 1;
        list.waiting.forEach((id, i) =>
            Object.assign(this.job(device.name, id), { state: "queued", position: first + i }),
        );
        if (list.running !== null) {
            present.add(list.running);
            this.job(device.name, list.running).state = "running";
        }
        for (const job of device.jobs.values()) {
            if (present.has(job.id) || isOver(job) || job.state === "sent") continue;
            job.state = "unknown";
        }
    }

    #takeJob(device: string, [id, kind, n]: string[], payload: Uint8Array): void {
        if (!id || !kind) return;
        const job = this.job(device, id);
        switch (kind) {
            case "state": {
                const state = parse<JobState>(payload);
                if (!state) return;
                job.state = state.state;
                job.position = state.position ?? undefined;
                job.error = state.error ?? undefined;
                if (state.warnings?.length) job.warnings = state.warnings;
                if (isOver(job)) this.#ended(job);
                return;
            }
            case "progress": {
                const progress = parse<JobProgress>(payload);
                if (progress && !isOver(job))
                    Object.assign(job, { progress, progressAt: Date.now(), state: "running" });
                return;
            }
            case "preview":
                if (isOver(job)) return;
                if (job.previewUrl) URL.revokeObjectURL(job.previewUrl);
                job.previewUrl = URL.createObjectURL(new Blob([payload as BlobPart], { type: "image/jpeg" }));
                return;
            case "image":
                return this.#takeImage(job, Number(n), payload);
            case "result": {
                const result = parse<JobResult>(payload);
                if (result) this.#takeResult(job, result);
            }
        }
    }

    #takeImage(job: Job, number: number, payload: Uint8Array): void {
        const key = `${job.device}/${job.id}/${number}`;
        if (this.pictures.some((picture) => picture.key === key)) return; // delivered twice
        const type = payload[0] === 0xff ? "image/jpeg" : "image/png";
        const blob = new Blob([payload as BlobPart], { type });
        const { device, id, request } = job;
        const picture = { key, device, job: id, number, blob, url: URL.createObjectURL(blob), at: Date.now(), request };
        job.images.set(number, picture);
        this.pictures = [picture, ...this.pictures];
        for (const old of this.pictures.splice(MOST_PICTURES)) URL.revokeObjectURL(old.url);
    }

    #takeResult(job: Job, result: JobResult): void {
        if (result.warnings?.length) job.warnings = result.warnings;
        for (const [number, picture] of job.images) {
            const { seed } = result.parameters;
            const prompt = result.images[number]?.prompt ?? result.parameters.prompt;
            picture.parameters = { ...result.parameters, prompt, seed: later(seed, number) };
            picture.timings = result.timings;
        }
    }

    #ended(job: Job): void {
        if (job.previewUrl) URL.revokeObjectURL(job.previewUrl);
        job.previewUrl = job.progress = undefined;
        const { jobs } = this.device(job.device);
        const ended = [...jobs.values()].filter(isOver);
        for (const old of ended.slice(0, Math.max(0, ended.length - MOST_ENDED))) jobs.delete(old.id);
    }
}

/** The seed of a job's image `number`; seeds have 64 bits and go round. */
function later(seed: unknown, number: number): unknown {
    if (typeof seed !== "number" && typeof seed !== "string") return seed;
    const value = BigInt.asUintN(64, BigInt(seed) + BigInt(number));
    return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : String(value);
}
