"""The txt2img service, by default on http://localhost:5001. It answers /api/img2img too."""

import sys

if __name__ == "__main__":
    from launcher.environment import enter_environment

    # Before anything is imported that a bare Python does not have.
    enter_environment(__file__)

from shared.web.app import txt2img_app
from shared.web.run_service import main

if __name__ == "__main__":
    sys.exit(main(txt2img_app, lambda settings: settings.txt2img_port, "DREAM_LAYER_TXT2IMG_PORT"))
