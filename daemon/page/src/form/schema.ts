// Fields of a form out of the contract's JSON schema of a request, and what a device's `info` says.

import contract from "virtual:contract";
import type { Info } from "../device/contract";

export interface Schema {
    $ref?: string;
    type?: string | string[];
    description?: string;
    enum?: unknown[];
    const?: unknown;
    anyOf?: Schema[];
    oneOf?: Schema[];
    allOf?: Schema[];
    properties?: Record<string, Schema>;
    required?: string[];
    pattern?: string;
    minimum?: number;
    exclusiveMinimum?: number;
    maximum?: number;
    multipleOf?: number;
    maxLength?: number;
}

export type Kind = "text" | "number" | "numbers" | "choice" | "switch" | "colour" | "group" | "time" | "image" | "mask";

export interface Field {
    /** Where it is in the request, with `.` between an object's key and what is in it. */
    path: string;
    key: string;
    kind: Kind;
    /** What it is, from the contract: English. */
    description: string;
    integer: boolean;
    minimum?: number;
    exclusiveMinimum?: number;
    maximum?: number;
    multipleOf?: number;
    maxLength?: number;
    pattern?: string;
    choices: string[];
    /** What the device takes where the field is left out. */
    standard?: string;
    fields: Field[];
}

/** Other spellings of keys that the form has, and what is not for people. */
const LEFT_OUT = ["enable_hr", "override_settings", "resize_mode", "transaction"];
const isOtherSpelling = (key: string) => LEFT_OUT.includes(key) || key.startsWith("hr_");

/** The order of keys within an object; others follow. */
const FIRST = [
    "scale",
    "panel",
    "width",
    "height",
    "steps",
    "denoising_strength",
    "upscaler",
    "cfg_scale",
    "sampler_name",
    "scheduler",
    "prompt",
    "negative_prompt",
    "fit",
    "rotate",
    "palette",
    "dither",
];

/** Every request key that the form offers for a device. */
export function fieldsOf(info: Info | undefined): Field[] {
    const request = (contract as Record<string, Schema>).Img2ImgRequest!;
    // A key without a type is one that the daemon does not act on yet.
    const isKnown = (schema: Schema) => Object.keys(schema).some((word) => word !== "description");
    const keys = Object.entries(request.properties ?? {}).filter(
        ([key, schema]) => !isOtherSpelling(key) && isKnown(schema),
    );
    const fields = keys.map(([key, schema]) => fieldOf(key, key, schema));
    for (const field of fields) adapt(field, info);
    return fields.filter((field) => field.key !== "upscale" || field.choices.length > 0);
}

function fieldOf(path: string, key: string, raw: Schema): Field {
    const schema = plain(raw);
    const { minimum, exclusiveMinimum, maximum, multipleOf, maxLength, pattern } = schema;
    const choices = choicesOf(schema);
    const inner = Object.entries(schema.properties ?? {}).map(([name, part]) => fieldOf(`${path}.${name}`, name, part));
    const place = ({ key: name }: Field) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
    inner.sort((a, b) => place(a) - place(b));
    const description = raw.description ?? schema.description ?? "";
    const integer = typesOf(schema).includes("integer");
    return {
        path,
        key,
        kind: kindOf(key, schema, choices),
        description,
        integer,
        minimum,
        exclusiveMinimum,
        maximum,
        multipleOf,
        maxLength,
        pattern,
        choices,
        fields: inner,
    };
}

function kindOf(key: string, schema: Schema, choices: string[]): Kind {
    if (key === "init_images") return "image";
    if (key === "mask") return "mask";
    if (key === "not_after") return "time";
    if (schema.pattern?.includes("#[0-9A-Fa-f]{6}")) return "colour";
    if (schema.properties) return "group";
    if (typesOf(schema).includes("array")) return "numbers";
    if (choices.includes("true") && choices.length === 2) return "switch";
    if (choices.length > 0) return "choice";
    return typesOf(schema).some((type) => type === "number" || type === "integer") ? "number" : "text";
}

const typesOf = (schema: Schema) => [schema.type ?? []].flat();

/** Without references, `null` and all variants but the one that says most: an object, else the first. */
function plain(schema: Schema): Schema {
    const reference = schema.$ref?.split("/").pop();
    if (reference) return plain((contract as Record<string, Schema>)[reference] ?? {});
    const variants = [...(schema.anyOf ?? []), ...(schema.allOf ?? [])];
    if (variants.length === 0) return schema;
    const all = variants.map(plain).filter((variant) => !(typesOf(variant).length === 1 && variant.type === "null"));
    return all.find((variant) => variant.properties) ?? all[0] ?? schema;
}

/** Texts that the schema allows, of several spellings the plainest. */
function choicesOf(schema: Schema): string[] {
    if (typesOf(schema).length === 1 && schema.type === "boolean") return ["true", "false"];
    const listed = schema.enum ?? schema.oneOf?.map((variant) => variant.const);
    if (!listed) return schema.pattern ? words(schema.pattern) : [];
    const values = listed.filter((value) => value !== null);
    if (values.includes(true)) return ["true", "false"];
    const texts = values.filter((value) => typeof value === "string");
    // Numbers beside names are the same choices in A1111's form.
    const names = texts.length > 0 ? texts : values.map(String);
    const fold = (name: string) => name.toLowerCase().replace(/[ _-]/g, "");
    const written = names.filter((name, i) => names.findIndex((other) => fold(other) === fold(name)) === i);
    return written.filter((name) => name.toLowerCase() !== "none");
}

/** The words of a pattern such as `^([Ff][Uu][Ll][Ll]|[Tt][Ii][Nn][Yy])$`; none if it is of another kind. */
function words(pattern: string): string[] {
    const inner = /^\^\((.*)\)\$$/.exec(pattern)?.[1];
    if (!inner) return [];
    const found = inner
        .split("|")
        .map((word) => word.replace(/\[(.)(.)\]\??/g, (all, _upper, lower) => (all.endsWith("?") ? "" : lower)));
    return found.every((word) => /^[\w-]+$/.test(word)) ? found.map((word) => word.toLowerCase()) : [];
}

/** What this device and its model allow. */
function adapt(field: Field, info: Info | undefined): void {
    if (!info) return;
    const { defaults, sizes, model } = info;
    switch (field.key) {
        case "sampler_name":
            field.choices = info.samplers;
            field.standard = defaults.sampler_name;
            break;
        case "scheduler":
            field.choices = info.schedulers ?? field.choices;
            break;
        case "steps":
        case "cfg_scale":
            field.standard = String(defaults[field.key]);
            break;
        case "width":
        case "height":
            field.minimum = sizes.smallest;
            field.multipleOf = sizes.multiple;
            field.standard = String(sizes.default);
            break;
        case "upscale":
            field.kind = "choice";
            field.choices = (model.upscaler?.factors ?? []).map(String);
            break;
        case "preview":
            field.standard = "true";
            break;
        case "hires":
            for (const part of field.fields) {
                if (part.key === "sampler_name") part.choices = info.samplers;
                if (part.key === "scheduler") part.choices = info.schedulers ?? part.choices;
                if (part.key === "upscaler" && !model.upscaler)
                    part.choices = part.choices.filter((name) => name !== "Model");
            }
            break;
        case "output":
            for (const part of field.fields.filter((inner) => inner.key === "panel")) {
                Object.assign(part, { kind: "choice", choices: info.panels ?? [] });
            }
            break;
    }
}
