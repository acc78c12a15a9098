"""The img2img service, by default on http://localhost:5004."""

import sys

if __name__ == "__main__":
    from launcher.environment import enter_environment

    # Before anything is imported that a bare Python does not have.
    enter_environment(__file__)

from shared.web.app import img2img_app
from shared.web.run_service import main

if __name__ == "__main__":
    sys.exit(main(img2img_app, lambda settings: settings.img2img_port, "DREAM_LAYER_IMG2IMG_PORT"))
