// The messages of docs/mqtt.md that the page reads. docs/asyncapi.json describes them in full.

export interface Info {
    version: string;
    model: { name: string; family: string; weights: string; upscaler?: { name: string; factors: number[] } | null };
    samplers: string[];
    schedulers?: string[];
    panels?: string[];
    defaults: { sampler_name: string; steps: number; cfg_scale: number };
    sizes: { default: number; smallest: number; multiple: number };
    limits: { queue: number; packet: number; memory: number | null };
}

export interface Health {
    rss: number | null;
    peak_rss: number | null;
    memory_limit: number | null;
    temperature: number | null;
    throttled: boolean | null;
    disk_free: number | null;
    queue: number;
    busy: boolean;
    paused: boolean;
    seconds_per_step: number | null;
    undelivered: number;
    problems: string[];
}

export interface Fault {
    code: string;
    message: string;
    field: string | null;
}

export type StateName = "queued" | "running" | "done" | "failed" | "cancelled" | "rejected";

export interface JobState {
    id: string;
    state: StateName;
    position?: number | null;
    error?: Fault | null;
    warnings?: string[];
}

export interface JobProgress {
    progress: number;
    eta_relative: number | null;
    stage: string;
    step: number;
    steps: number;
    image: number;
    images: number;
}

/** What was painted, or what is asked for: keys of a request. */
export type Parameters = Record<string, unknown>;

export interface JobResult {
    id: string;
    status: string;
    parameters: Parameters;
    timings: Record<string, number | null>;
    images: {
        content_type: string;
        topic: string | null;
        path: string | null;
        bytes: number;
        prompt?: string | null;
    }[];
    warnings?: string[];
}

export interface JobList {
    running: string | null;
    waiting: string[];
    paused: boolean;
}

export interface Answer {
    status: "ok" | "error";
    data: Partial<JobList> & { cancelled?: string[] };
    error?: string;
}

const decoder = new TextDecoder();

/** Parses a payload. A seed may have 64 bits, more than a number of JavaScript holds: then it becomes a text. */
export function parse<T>(payload: Uint8Array): T | undefined {
    try {
        return JSON.parse(decoder.decode(payload).replace(/("seed":\s*)(\d{16,})/g, '$1"$2"')) as T;
    } catch {
        return undefined;
    }
}

/** A request as JSON, with a seed that may be a text of digits as a number. */
export function toJson(request: Parameters): string {
    const { seed, ...rest } = request;
    const json = JSON.stringify(rest);
    const has = typeof seed === "number" || (typeof seed === "string" && /^-?\d+$/.test(seed));
    if (!has) return json;
    return `{"seed":${seed}${json === "{}" ? "" : ","}${json.slice(1)}`;
}
