"""`diffused http` with a client library that others wrote, webuiapi, in front of a real broker and a real device.

    DIFFUSED_PROGRAM=target/release/diffused python3 tests/home/web_api.py
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

import webuiapi
from PIL import Image, ImageDraw

PROGRAM = os.path.abspath(os.environ["DIFFUSED_PROGRAM"])
PATIENCE = 120
TOKEN = "a secret of some length"


def until(what, probe):
    """Waits until `probe` gives something true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = probe()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"in {PATIENCE} s not: {what}")


class WebApi(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="diffused-web-api-")
        folder, cls.programs = Path(cls.folder.name), []
        # Debian keeps mosquitto where only root's PATH leads.
        environment = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin"}

        def start(name, *words, **more):
            log = open(folder / f"{name}.log", "w")
            cls.addClassCleanup(log.close)
            program = subprocess.Popen(words, stderr=log, env=environment, text=True, **more)
            cls.programs.append(program)
            return program

        port = free_port()
        (folder / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
        start("mosquitto", "mosquitto", "-c", str(folder / "mosquitto.conf"))
        config = folder / "config.toml"
        config.write_text(f'device = "frame"\nstate_dir = "{folder}/state"\n[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\n')
        start("device", PROGRAM, "run", "--config", str(config))
        (folder / "token").write_text(TOKEN + "\n")
        words = ["http", "--config", str(config), "--listen", "127.0.0.1:0", "--token-file", str(folder / "token")]
        http = start("http", PROGRAM, *words, "--json", stdout=subprocess.PIPE)
        cls.addClassCleanup(http.stdout.close)
        host, cls.port = json.loads(http.stdout.readline())["address"].split(":")
        cls.api = webuiapi.WebUIApi(host=host, port=int(cls.port), username="user", password=TOKEN, steps=2)
        until("the device is known", lambda: cls.api.session.get(f"{cls.api.baseurl}/samplers").status_code == 200)

    @classmethod
    def tearDownClass(cls):
        for program in reversed(cls.programs):
            program.terminate()
            program.wait(30)
        cls.folder.cleanup()

    def test_txt2img(self):
        result = self.api.txt2img(prompt="a red house", seed=7, width=64, height=96)
        self.assertEqual((result.image.size, result.info["seed"]), ((64, 96), 7))
        self.assertIn("Seed: 7, Size: 64x96", result.info["infotexts"][0])
        self.assertEqual(result.image.info["parameters"], result.info["infotexts"][0])
        self.assertEqual(result.info["sampler_name"], "Euler a")
        again = self.api.txt2img(prompt="a red house", seed=7, width=64, height=96)
        self.assertEqual(result.json["images"], again.json["images"])

    def test_several_images(self):
        result = self.api.txt2img(prompt="a cat", seed=3, n_iter=2, batch_size=2, width=64, height=64, steps=1)
        self.assertEqual((len(result.images), result.info["all_seeds"]), (4, [3, 4, 5, 6]))

    def test_hires(self):
        latent = webuiapi.HiResUpscaler.Latent
        result = self.api.txt2img(
            prompt="a cat", seed=3, width=64, height=64, enable_hr=True, hr_scale=2, hr_upscaler=latent
        )
        self.assertEqual(result.image.size, (128, 128))

    def test_img2img_and_inpainting(self):
        start = Image.new("RGB", (64, 64), "blue")
        words = dict(images=[start], prompt="a red house", width=64, height=64, steps=4)
        result = self.api.img2img(**words, denoising_strength=0.6)
        self.assertEqual(result.image.size, (64, 64))
        mask = Image.new("L", (64, 64), 0)
        ImageDraw.Draw(mask).rectangle((32, 0, 63, 63), fill=255)
        result = self.api.img2img(
            **words, mask_image=mask, denoising_strength=0.9, mask_blur=0, inpainting_fill=1, inpaint_full_res=False, seed=5
        )
        image = result.image.convert("RGB")
        self.assertEqual(image.crop((0, 0, 24, 64)).getextrema(), ((0, 0), (0, 0), (255, 255)), "it stayed as it was")
        self.assertNotEqual(image.crop((40, 0, 64, 64)).getextrema(), ((0, 0), (0, 0), (255, 255)), "it was painted")

    def test_lists(self):
        self.assertIn("DPM++ 2M", self.api.util_get_sampler_names())
        self.assertIn("karras", [item["name"] for item in self.api.get_schedulers()])
        self.assertIn("Latent", [item["name"] for item in self.api.get_latent_upscale_modes()])
        self.assertEqual(self.api.get_upscalers()[0]["name"], "None")
        self.assertEqual(self.api.get_loras() + self.api.get_sd_vae() + self.api.get_prompt_styles(), [])
        self.assertGreater(self.api.get_memory()["ram"]["used"], 0)
        self.assertEqual(self.api.get_scripts(), {"txt2img": [], "img2img": []})
        self.assertTrue(self.api.get_cmd_flags()["api"])
        self.assertIsNone(self.api.refresh_checkpoints())
        self.assertEqual(self.api.get_embeddings()["loaded"], {})

    def test_options(self):
        (name,) = self.api.util_get_model_names()
        self.assertEqual(self.api.util_get_current_model(), name)
        self.api.util_set_model(name)
        self.api.set_options({"samples_format": "jpg"})
        try:
            self.assertEqual(self.api.txt2img(prompt="a cat", width=64, height=64, steps=1).image.format, "JPEG")
        finally:
            self.api.set_options({"samples_format": "png"})

    def test_png_info(self):
        image = self.api.txt2img(prompt="a cat", width=64, height=64, steps=1, seed=9).image
        result = self.api.png_info(image)
        self.assertEqual((result.info, result.parameters["Seed"]), (image.info["parameters"], "9"))

    def test_progress_and_interrupt(self):
        ended = []
        words = dict(prompt="a cat", width=64, height=64, steps=1000)
        painting = threading.Thread(target=lambda: ended.append(self.api.txt2img(**words)))
        painting.start()
        # A session of its own: that of the other thread waits for its answer.
        watch = webuiapi.WebUIApi(port=int(self.port), username="user", password=TOKEN)

        def progress():
            now = watch.get_progress()
            return now["current_image"] and now["progress"] > 0.05 and now

        seen = until("progress with an image", progress)
        self.assertEqual(seen["state"]["sampling_steps"], 1000)
        self.assertGreater(seen["eta_relative"], 0)
        watch.interrupt()
        painting.join(PATIENCE)
        self.assertEqual(ended[0].images, [])
        watch.util_wait_for_ready(check_interval=0.1)

    def test_what_is_wrong_is_told(self):
        with self.assertRaises(RuntimeError) as raised:
            self.api.txt2img(prompt="a cat", width=100)
        status, text = raised.exception.args
        self.assertEqual((status, json.loads(text)["field"]), (422, "width"))
        stranger = webuiapi.WebUIApi(port=int(self.port), username="user", password="wrong")
        with self.assertRaises(RuntimeError) as raised:
            stranger.txt2img(prompt="a cat")
        self.assertEqual(raised.exception.args[0], 401)


def free_port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


if __name__ == "__main__":
    result = unittest.TextTestRunner(verbosity=2).run(unittest.defaultTestLoader.loadTestsFromTestCase(WebApi))
    failed = len(result.failures) + len(result.errors)
    # As the tests in Rust end, which tests/run counts.
    print(f"test result: {result.testsRun - failed} passed; {failed} failed; {len(result.skipped)} ignored", flush=True)
    sys.exit(0 if result.wasSuccessful() else 1)
