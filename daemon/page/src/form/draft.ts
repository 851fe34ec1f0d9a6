// What is typed into the form: texts by a field's path, and the request that they make.

import type { Parameters } from "../device/contract";
import type { Field } from "./schema";

/** Texts as typed; a field that is left out has none. */
export type Draft = Record<string, string>;

/** What is wrong with a field, for `text.problem`. */
export type Problem =
    | { is: "missing" }
    | { is: "number" }
    | { is: "integer" }
    | { is: "below"; limit: number }
    | { is: "atMost"; limit: number }
    | { is: "above"; limit: number }
    | { is: "multiple"; of: number; below: number; above: number }
    | { is: "long"; limit: number }
    /** Not of the form of the field `key`. */
    | { is: "form"; key: string }
    | { is: "device"; message: string };

export type Problems = Record<string, Problem>;

/** Keys that a request has only with an init image. */
const OF_INIT_IMAGE = ["init_images", "denoising_strength", "fit", "background"];
const OF_MASK = /^(mask|inpaint|keep_unmasked)/;

/** The fields that count, as the draft is. */
export function isAsked(field: Field, draft: Draft): boolean {
    const image = Boolean(draft.init_images);
    if (OF_INIT_IMAGE.includes(field.key)) return image;
    if (OF_MASK.test(field.key)) return image && Boolean(draft.mask);
    return true;
}

export function isImageToImage(draft: Draft): boolean {
    return Boolean(draft.init_images);
}

/** The request of a draft, or what is wrong with it. */
export function requestOf(fields: Field[], draft: Draft): { request: Parameters; problems: Problems } {
    const [request, problems]: [Parameters, Problems] = [{}, {}];
    if (!draft.prompt?.trim()) problems.prompt = { is: "missing" };
    for (const field of fields) {
        if (isAsked(field, draft)) put(request, field, draft, problems);
    }
    return { request, problems };
}

function put(target: Parameters, field: Field, draft: Draft, problems: Problems): void {
    if (field.kind === "group") {
        const inner: Parameters = {};
        for (const part of field.fields) put(inner, part, draft, problems);
        if (Object.keys(inner).length > 0) target[field.key] = inner;
        return;
    }
    const text = draft[field.path];
    if (text === undefined || text.trim() === "") return;
    const problem = problemOf(field, text);
    if (problem) problems[field.path] = problem;
    else target[field.key] = valueOf(field, text);
}

function valueOf(field: Field, text: string): unknown {
    switch (field.kind) {
        case "number":
            // A seed may be longer than a number of JavaScript is exact.
            return field.key === "seed" ? text.trim() : Number(text);
        case "numbers":
            return numbersIn(text);
        case "switch":
            return text === "true";
        case "choice":
            return field.integer ? Number(text) : text;
        case "time":
            return Math.floor(new Date(text).getTime() / 1000);
        case "image":
            return [text.replace(/^data:[^,]*,/, "")];
        case "mask":
            return text.replace(/^data:[^,]*,/, "");
        default:
            return field.path === "prompt" || field.path === "negative_prompt" ? text : text.trim();
    }
}

/** The numbers of a text such as `0.2, 0.9`. */
const numbersIn = (text: string) =>
    text
        .trim()
        .split(/[\s,;–-]+/)
        .map(Number);

function problemOf(field: Field, text: string): Problem | undefined {
    if (field.maxLength !== undefined && new TextEncoder().encode(text).length > field.maxLength) {
        return { is: "long", limit: field.maxLength };
    }
    if (
        (field.kind === "text" || field.kind === "colour") &&
        field.pattern &&
        !new RegExp(field.pattern).test(text.trim())
    ) {
        return { is: "form", key: field.key };
    }
    if (field.kind === "numbers" && (numbersIn(text).length !== 2 || !numbersIn(text).every(Number.isFinite))) {
        return { is: "form", key: field.key };
    }
    if (field.kind !== "number") return undefined;
    const { minimum, exclusiveMinimum, maximum, multipleOf } = field;
    const value = Number(text);
    if (!Number.isFinite(value)) return { is: "number" };
    if (field.integer && !Number.isInteger(value)) return { is: "integer" };
    if (minimum !== undefined && value < minimum) return { is: "below", limit: minimum };
    if (exclusiveMinimum !== undefined && value <= exclusiveMinimum) return { is: "above", limit: exclusiveMinimum };
    if (maximum !== undefined && value > maximum) return { is: "atMost", limit: maximum };
    if (multipleOf !== undefined && value % multipleOf !== 0) {
        const below = Math.floor(value / multipleOf) * multipleOf;
        return { is: "multiple", of: multipleOf, below, above: below + multipleOf };
    }
    return undefined;
}

/** The draft that gives `request`. Keys that the form does not have are left out. */
export function draftOf(fields: Field[], request: Parameters): Draft {
    const draft: Draft = {};
    const fill = (field: Field, value: unknown): void => {
        if (value === undefined || value === null) return;
        if (field.kind === "group") {
            const inner: Parameters = typeof value === "object" ? (value as Parameters) : {};
            for (const part of field.fields) fill(part, inner[part.key]);
        } else if (field.kind === "image") {
            if (Array.isArray(value)) draft[field.path] = dataUrl(String(value[0]));
        } else if (field.kind === "mask") {
            draft[field.path] = dataUrl(String(value));
        } else if (field.kind !== "time" && field.key !== "id") {
            draft[field.path] = String(value);
        }
    };
    for (const field of fields) fill(field, request[field.key]);
    return draft;
}

function dataUrl(base64: string): string {
    if (base64.startsWith("data:")) return base64;
    return `data:image/${base64.startsWith("/9j/") ? "jpeg" : base64.startsWith("UklGR") ? "webp" : "png"};base64,${base64}`;
}

/** A request that paints what `parameters` of a result say: as a request names them. */
export function requestOfPainted(parameters: Parameters): Parameters {
    const { inpainting, prompt_template, negative_prompt_template, ...rest } = parameters;
    return { ...rest, ...(inpainting as Parameters | undefined) };
}
