// Parts of the page by themselves: packets of MQTT cut anywhere, and fields out of the contract.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { after, before, test } from "node:test";
import { createServer } from "vite";

let server;
before(async () => {
    const root = fileURLToPath(new URL("..", import.meta.url));
    server = await createServer({ root, server: { middlewareMode: true, ws: false, watch: null }, logLevel: "error" });
});
after(() => server.close());

const text = (words) => [0, words.length, ...Buffer.from(words)];

test("packets are read wherever the stream is cut", async () => {
    const { PacketReader } = await server.ssrLoadModule("/src/mqtt/packets.ts");
    // CONNACK with a maximum packet size and a user property, then a message whose length takes two bytes, then SUBACK.
    const connack = [0x20, 17, 1, 0, 14, 0x27, 0, 0, 1, 0, 0x26, ...text("a"), ...text("bcd")];
    connack[1] = connack.length - 2;
    connack[4] = connack.length - 5;
    const payload = Array.from({ length: 300 }, (_, i) => i % 251);
    const body = [...text("diffused/f/status"), 0, 7, 2, 0x01, 1, ...payload];
    const publish = [0x33, (body.length % 128) | 0x80, body.length >> 7, ...body];
    const suback = [0x90, 5, 0, 9, 0, 1, 0x87];
    const all = Uint8Array.from([...connack, ...publish, ...suback]);
    for (const size of [1, 2, 3, 7, 100, all.length]) {
        const reader = new PacketReader();
        const packets = [];
        for (let at = 0; at < all.length; at += size) packets.push(...reader.push(all.slice(at, at + size)));
        const [first, message, last] = packets;
        assert.equal(packets.length, 3, `in pieces of ${size}`);
        assert.deepEqual(
            [first.type, first.code, first.sessionPresent, first.maximumPacket],
            ["connack", 0, true, 256],
        );
        assert.deepEqual([message.topic, message.qos, message.id, message.retain], ["diffused/f/status", 1, 7, true]);
        assert.deepEqual([...message.payload], payload);
        assert.deepEqual(last.codes, [1, 0x87]);
    }
});

test("what is not MQTT is an error", async () => {
    const { PacketReader } = await server.ssrLoadModule("/src/mqtt/packets.ts");
    for (const bytes of [
        [0x20, 0xff, 0xff, 0xff, 0xff, 1],
        [0x20, 3, 0, 0, 5],
        [0x20, 4, 0, 0, 1, 0x7f],
        [0x30, 3, 0, 9, 65],
    ])
        assert.throws(() => new PacketReader().push(Uint8Array.from(bytes)), undefined, String(bytes));
});

test("a login and a message are the bytes of the standard", async () => {
    const { connect, publish } = await server.ssrLoadModule("/src/mqtt/packets.ts");
    const login = { clientId: "c", username: "u", password: "p", keepAlive: 30, sessionExpiry: 600, cleanStart: true };
    const head = [0, 4, 77, 81, 84, 84, 5, 0xc2, 0, 30, 5, 0x11, 0, 0, 2, 0x58];
    const expected = [...head, ...text("c"), ...text("u"), ...text("p")];
    assert.deepEqual([...connect(login)], [0x10, expected.length, ...expected]);
    const properties = [1, 1, 3, ...text("application/json")];
    const message = [...text("t"), 0, 5, properties.length, ...properties, 123, 125];
    assert.deepEqual([...publish(5, "t", Buffer.from("{}"), false)], [0x32, message.length, ...message]);
});

test("every key of the contract is in the form, once, or is another spelling of one that is", async () => {
    const { fieldsOf } = await server.ssrLoadModule("/src/form/schema.ts");
    const contract = JSON.parse(readFileSync(new URL("../../../docs/asyncapi.json", import.meta.url), "utf8"));
    const keys = Object.keys(contract.components.schemas.Img2ImgRequest.properties);
    const spelling = (key) =>
        key.startsWith("hr_") || /^(enable_hr|override_settings|resize_mode|transaction)$/.test(key);
    const [defaults, sizes] = [
        { sampler_name: "ddim", steps: 20, cfg_scale: 5 },
        { default: 128, smallest: 32, multiple: 8 },
    ];
    const model = { name: "m", family: "sd1", weights: "int8", upscaler: { name: "u", factors: [2, 4] } };
    const info = { samplers: ["ddim", "euler"], panels: ["p"], defaults, sizes, model, limits: {} };
    const fields = fieldsOf(info);
    assert.deepEqual(fields.map((field) => field.key).sort(), keys.filter((key) => !spelling(key)).sort());
    const of = (key) => fields.find((field) => field.key === key);
    assert.deepEqual(of("sampler_name").choices, ["ddim", "euler"]);
    assert.deepEqual(of("format").choices, ["png", "jpg"]);
    assert.deepEqual(of("fit").choices, ["stretch", "cover", "contain"]);
    assert.deepEqual(of("upscale").choices, ["2", "4"]);
    assert.deepEqual(of("inpainting_fill").choices, ["fill", "original", "latent_noise", "latent_nothing"]);
    assert.deepEqual([of("width").minimum, of("width").maximum, of("width").multipleOf], [32, 2048, 8]);
    assert.equal(
        fieldsOf({ ...info, model: { ...model, upscaler: null } }).some((field) => field.key === "upscale"),
        false,
    );
});

test("two numbers are typed as people write them, and come back", async () => {
    const { fieldsOf } = await server.ssrLoadModule("/src/form/schema.ts");
    const { draftOf, requestOf } = await server.ssrLoadModule("/src/form/draft.ts");
    const fields = fieldsOf(undefined);
    const typed = (guidance_interval) => requestOf(fields, { prompt: "a", guidance_interval });
    for (const text of ["0.2,0.9", " 0.2 0.9 ", "0.2 – 0.9", "0.2; 0.9"]) {
        assert.deepEqual(typed(text).request.guidance_interval, [0.2, 0.9], text);
    }
    for (const text of ["0.2", "0.2, 0.5, 0.9", "from 0.2 on"]) {
        assert.deepEqual(typed(text).problems.guidance_interval, { is: "form", key: "guidance_interval" }, text);
    }
    assert.equal(draftOf(fields, { guidance_interval: [0.2, 0.9] }).guidance_interval, "0.2,0.9");
});

test("a seed of 64 bits goes out and comes back whole", async () => {
    const { parse, toJson } = await server.ssrLoadModule("/src/device/contract.ts");
    const json = toJson({ prompt: "a", seed: "18446744073709551615" });
    assert.equal(json, '{"seed":18446744073709551615,"prompt":"a"}');
    assert.deepEqual(parse(Buffer.from(json)), { seed: "18446744073709551615", prompt: "a" });
    assert.deepEqual(parse(Buffer.from('{"seed": 7, "prompt": "\\"seed\\": 12345678901234567890"}')).seed, 7);
});
